"""Write the generated files of the chart."""

from chart_generator.files import CHART, write_files

if __name__ == "__main__":
    write_files(CHART)
