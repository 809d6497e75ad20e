"""SFT phases that begin at the same checkpoint and differ in one part or setting each: ``mifo analyze fork``."""
