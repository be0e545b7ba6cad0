from shared import memo


def counting():
    """A slow answer that is another one each time it is worked out."""
    calls = []

    def compute():
        calls.append(1)
        return len(calls)

    return compute


def test_a_slow_answer_is_remembered_for_a_while():
    compute = counting()
    assert [memo.cached("key", compute) for _ in range(3)] == [1, 1, 1]
    assert memo.cached("other key", compute) == 2
    assert memo.cached("key", compute, seconds=0) == 3


def test_answers_are_dropped_by_what_their_key_begins_with():
    compute = counting()
    names = [("names", "a"), ("names", "b"), ("sizes", "a")]
    assert [memo.cached(key, compute) for key in names] == [1, 2, 3]
    memo.forget("names")
    assert [memo.cached(key, compute) for key in names] == [4, 5, 3]
    memo.forget()
    assert memo.cached(("sizes", "a"), compute) == 6
