"""Write the generated files."""

from pathlib import Path

from chart_generator.files import write_files

if __name__ == "__main__":
    write_files(Path())
