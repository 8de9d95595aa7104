"""The measured process of ``run.py``: that of ``distilrubert benchmark``, which also knows the peers."""

from peers import register_peers

from distilrubert.evaluation.speed import speed_worker

if __name__ == "__main__":
    register_peers()
    speed_worker.serve(speed_worker.Worker())
