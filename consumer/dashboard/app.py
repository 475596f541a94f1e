"""The script that Streamlit runs for each visitor and each change."""

from consumer.dashboard.shell import run

run()
