"""
A gateway for SGLang prefill/decode clusters as an ASGI application: `uvicorn pdroute_gateway:app --workers 4`. README.md beside this package says how.

settings.py   what the environment says
app.py        paths, bodies, answers; the life of a process
job.py        a request and its exchange: events in, actions out
client.py     the connections to workers
"""
from .app import Gateway

app = Gateway()
