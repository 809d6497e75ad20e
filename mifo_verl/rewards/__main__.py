from mifo_verl.cli import old_name

if __name__ == "__main__":
    old_name("rewards", "score")
