"""The measured process of ``run.py``: that of ``distilrubert benchmark``, which also knows the peers."""

from peers import PEERS

from distilrubert.evaluation.speed import speed_worker
from distilrubert.evaluation.speed.backends import BACKENDS

if __name__ == "__main__":
    BACKENDS.update(PEERS)
    speed_worker.serve(speed_worker.Worker())
