"""Methods x seeds x settings: run, resumed, and compared with honest intervals."""
