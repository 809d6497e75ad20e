"""One self-contained HTML file about one run or several: ``mifo report <run> [<run> ...]``."""
