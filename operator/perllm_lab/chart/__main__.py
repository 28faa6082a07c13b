"""Write the generated files of the chart."""

from perllm_lab.chart.files import CHART, write_files

if __name__ == "__main__":
    write_files(CHART)
