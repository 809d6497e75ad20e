"""One self-contained HTML file about one run or several: ``python -m mifo_verl.tools.report <run> [<run> ...]``."""
