"""The measured process of ``inference.py``: that of ``distilrubert benchmark``, which also knows the peers."""

from inference_peers import PEERS

from distilrubert.evaluation.speed import speed_worker
from distilrubert.evaluation.speed.backends import BACKENDS

BACKENDS.update(PEERS)
speed_worker.main()
