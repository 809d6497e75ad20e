"""The paper (MIFO, arXiv 2510.04454), one idea a file: torch and the standard library only."""
