"""What analysts look at: Streamlit pages over `consumer/views/`.

`app.py` is the script that Streamlit runs, `shell.py` puts sidebar and pages together, `screens/` has a page each. They
ask by `data.py`, draw by `charts.py`, and say n, period and interval by `captions.py`.
"""
