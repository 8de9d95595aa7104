"""Processes that tokenise: what happens to texts when one of them fails or is killed."""

import os
import signal

import psutil
import pyarrow as pa
import pytest

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus.encoder_pool import TEXTS_WORTH_PROCESSES, EncoderPool

MANY = [str(number) for number in range(TEXTS_WORTH_PROCESSES + 1)]


def encode(texts: list[str]) -> pa.Table:
    """Where the texts were read, and their lengths; two texts do harm."""
    if "be killed" in texts:
        os.kill(os.getpid(), signal.SIGKILL)
    if "fail" in texts:
        raise KeyError("fail")
    return pa.table({"length": [len(text) for text in texts], "process": [os.getpid()] * len(texts)})


def test_tables_come_in_the_order_of_the_texts_and_a_small_corpus_starts_nothing() -> None:
    with EncoderPool(encode, 2) as pool:
        few = pool.submit(["one", "three"]).result()
        assert few.to_pydict() == {"length": [3, 5], "process": [os.getpid()] * 2}
        futures = [pool.submit(MANY) for _ in range(8)]
        tables = [future.result() for future in futures]
        processes = {table["process"][0].as_py() for table in tables}
    assert all(table["length"].to_pylist() == [len(text) for text in MANY] for table in tables)
    assert os.getpid() not in processes
    assert not any(map(psutil.pid_exists, processes))


def test_an_error_is_that_of_the_process_and_the_others_continue() -> None:
    with EncoderPool(encode, 2) as pool:
        futures = [pool.submit([*MANY, "fail"]), *(pool.submit(MANY) for _ in range(4))]
        with pytest.raises(KeyError, match="fail") as error:
            futures[0].result()
        assert "in encode" in error.value.__notes__[0]
        assert all(len(future.result()) == len(MANY) for future in futures[1:])


def test_a_process_that_is_killed_is_told_while_the_other_one_waits() -> None:
    with EncoderPool(encode, 2) as pool, pytest.raises(UserError, match="one of 2 tokenising processes was killed"):
        pool.submit([*MANY, "be killed"]).result()
