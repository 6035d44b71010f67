import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hypclip.data.augment import AugmentConfig
from hypclip.data.batch import ExampleMaker, collate
from hypclip.data.image import decode
from hypclip.data.shards import find_shards, share_of
from hypclip.data.stream import BatchStream, StreamConfig, StreamState
from hypclip.errors import DataError
from tests.support.data import (
    BLUE,
    RED,
    cheap_stream,
    encoded,
    number_and_draw,
    numbers,
    pair,
    quadrants,
    rows,
    stack,
    stored_as_json,
    take,
    write_pairs,
    write_tar,
)
from tests.support.models import tiny_encoder

SIZES = [7, 5, 9, 6, 8, 5]
THREE_WORKERS = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
HANGS = pytest.mark.timeout(60)
"""What used to be read for ever: seconds are plenty."""


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """Six shards of together 40 samples, none bad."""
    return write_pairs(tmp_path_factory.mktemp("forty"), SIZES)


@pytest.fixture(scope="module")
def some_bad(tmp_path_factory):
    """Six shards of together 40 samples, three of which are bad, and one of the shards is truncated."""
    folder = tmp_path_factory.mktemp("some_bad")
    shards = write_pairs(folder, SIZES, {3: "", 13: b"\xff", 30: " "})
    os.truncate(shards[4], 1024 * 12 + 520)  # in the image of its seventh sample, number 0033
    return shards


USABLE = set(range(40)) - {3, 13, 30, 33, 34}
REASONS = Counter({"no caption": 2, "unreadable text": 1})


def config(shards, batch_size=3, **changes):
    defaults = {"seed": 5, "workers": 0, "shuffle_buffer": 8, "max_bad_fraction": 0.5, "max_bad_shards": 9}
    return StreamConfig(shards, batch_size, **{**defaults, **changes})


def epochs(stream, size, count):
    """Return the sample numbers of the first epochs, when batches divide them."""
    flat = [number for batch in islice(stream, size * count) for number in numbers(batch)]
    return [flat[i * len(flat) // count : (i + 1) * len(flat) // count] for i in range(count)]


# What is read, and in which order -------------------------------------------------------------------------------------


def test_every_epoch_has_every_sample_once_in_an_order_of_its_own(forty):
    found = epochs(cheap_stream(config(forty, batch_size=4)), 10, 5)
    assert all(sorted(epoch) == list(range(40)) for epoch in found)
    assert len({tuple(epoch) for epoch in found}) == 5


def test_samples_are_shuffled_across_the_buffer_and_not_only_by_shard(forty):
    order = epochs(cheap_stream(config(forty, batch_size=4, shuffle_buffer=40)), 10, 1)[0]
    neighbours = sum(b - a == 1 for a, b in pairwise(order))
    assert neighbours <= 6  # 34 were shards shuffled and samples not; 1 is expected of a random order


def test_a_buffer_of_one_keeps_the_order_within_shards(forty):
    order = epochs(cheap_stream(config(forty, batch_size=4, shuffle_buffer=1)), 10, 1)[0]
    assert sum(b - a == 1 for a, b in pairwise(order)) >= 34


@THREE_WORKERS
@pytest.mark.parametrize("world_size, workers", [(1, 2), (2, 0), (2, 3), (3, 1)])
def test_each_reader_reads_its_share_of_every_epoch(forty, world_size, workers):
    held, first = {}, 0
    for shard, size in zip(forty, SIZES, strict=True):
        held[shard] = range(first, first + size)
        first += size
    for rank in range(world_size):
        stream = cheap_stream(config(forty, 1, workers=workers, rank=rank, world_size=world_size))
        readers = max(1, workers)
        batches = take(stream, readers * 50)
        for worker in range(readers):
            read = [number for batch in batches[worker::readers] for number in batch]
            for epoch in range(2):
                share = share_of(
                    forty, seed=5, epoch=epoch, rank=rank, world_size=world_size, worker=worker, workers=readers
                )
                expected = sorted(number for shard in share for number in held[shard])
                assert sorted(read[: len(expected)]) == expected
                read = read[len(expected) :]


def test_the_stream_is_a_function_of_seed_rank_world_size_and_worker(forty):
    def run(**changes):
        return [rows(batch) for batch in islice(cheap_stream(config(forty, **changes)), 15)]

    first = run()
    torch.manual_seed(99)
    assert run() == first
    different = [run(seed=6), run(rank=1, world_size=2), run(rank=0, world_size=2), run(rank=1, world_size=3)]
    assert all(other != first for other in different)
    assert all(a != b for i, a in enumerate(different) for b in different[:i])


def test_one_worker_beside_the_training_process_reads_as_none_does(forty):
    assert take(cheap_stream(config(forty, workers=1)), 20) == take(cheap_stream(config(forty)), 20)


def test_random_changes_differ_by_epoch_and_sample_and_not_by_where_the_data_lies(forty, tmp_path):
    for shard in forty:
        shutil.copy(shard, tmp_path)
    here, there = (
        [rows(batch) for batch in islice(cheap_stream(config(shards, 4)), 20)]
        for shards in (forty, find_shards(str(tmp_path)))
    )
    assert here == there
    draws = [draw for batch in here for draw in batch["text"]]
    assert len(set(draws)) == 80  # 40 samples in 2 epochs


def test_a_batch_may_be_larger_than_an_epoch(forty):
    batches = take(cheap_stream(config(forty, batch_size=100)), 2)
    assert [len(batch) for batch in batches] == [100, 100]
    assert sorted(batches[0][:40]) == sorted(batches[0][40:80]) == list(range(40))
    assert sorted(batches[0][80:] + batches[1][:20]) == list(range(40))


def test_every_picture_is_decoded_once_however_many_boxes_and_crops(tmp_path, monkeypatch):
    caption = "a red thing and a green one"
    chunks = [[0, 11, 0, 0, 0.5, 0.5, 0.9], [16, 27, 0.5, 0, 1, 0.5, 0.8], [0, 5, 0.1, 0.1, 0.9, 0.9, 0.1]]
    picture = encoded(quadrants(64, 48), "JPEG")
    fields = stored_as_json(caption, chunks, [[0, 27, 0, 0, 1, 0.5, 0.7]])
    files = [file for i in range(12) for file in ((f"{i:02}.jpg", picture), (f"{i:02}.json", fields))]
    shard = str(write_tar(tmp_path / "0.tar", files))
    decoded = []
    monkeypatch.setattr("hypclip.data.record.decode", lambda data: decoded.append(data) or decode(data))
    roles = frozenset({"image", "text", "box_image", "box_text"})
    maker = ExampleMaker(roles, 32, AugmentConfig())
    batches = islice(BatchStream(config([shard], 4), maker, partial(collate, tokenizer=tiny_encoder().tokenizer)), 3)
    assert [batch.images["box_image"].shape for batch in batches] == [(4, 3, 32, 32)] * 3
    assert decoded == [picture] * 12


def test_reading_leaves_the_generator_of_training_alone(forty):
    for workers in (0, 1):
        before = torch.get_rng_state()
        take(cheap_stream(config(forty, workers=workers)), 2)
        assert torch.equal(torch.get_rng_state(), before)


# Resuming -------------------------------------------------------------------------------------------------------------


def recorded(stream, count):
    """Return (batch, state after it as JSON) of the next batches."""
    return [(rows(batch), json.dumps(stream.state.to_plain())) for batch in islice(stream, count)]


def resumed(settings_, state, count):
    return recorded(cheap_stream(settings_, StreamState.from_plain(json.loads(state))), count)


@THREE_WORKERS
@pytest.mark.parametrize("workers, stops", [(0, range(1, 28)), (1, [1, 11, 12]), (2, [1, 4, 13, 14]), (3, [2, 13, 15])])
def test_a_resumed_stream_goes_on_as_if_it_had_never_stopped(some_bad, workers, stops):
    """Batches and counts alike, with bad samples and a damaged shard in between, across ends of epochs."""
    whole = recorded(cheap_stream(config(some_bad, workers=workers)), 30)
    last = StreamState.from_plain(json.loads(whole[-1][1]))
    assert max(epoch for epoch, _ in last.positions.values()) >= 2
    assert set(last.seen.skipped) == set(last.seen.examples) == set(REASONS)
    assert len(last.seen.damaged) == 1
    for stop in stops:
        assert resumed(config(some_bad, workers=workers), whole[stop - 1][1], 30 - stop) == whole[stop:]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 9), st.integers(1, 50), st.integers(0, 99), st.integers(1, 12))
def test_resuming_works_for_any_batch_and_buffer(some_bad, batch_size, buffer, seed, stop):
    settings_ = config(some_bad, batch_size, shuffle_buffer=buffer, seed=seed)
    whole = recorded(cheap_stream(settings_), stop + 10)
    assert resumed(settings_, whole[stop - 1][1], 10) == whole[stop:]


@HANGS
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_exactly_at_the_end_of_an_epoch_can_be_resumed(tmp_path, workers):
    """Batches divide the epoch, so that nothing is left of it: that is no empty shard."""
    settings_ = config(write_pairs(tmp_path, [6, 6]), 3, workers=workers)
    whole = recorded(cheap_stream(settings_), 12)
    for stop in (2, 4, 8):
        assert resumed(settings_, whole[stop - 1][1], 12 - stop) == whole[stop:]


def test_a_stream_iterated_again_goes_on(forty):
    whole = take(cheap_stream(config(forty)), 10)
    stream = cheap_stream(config(forty))
    assert take(stream, 4) + take(stream, 6) == whole


def test_counts_are_of_what_was_read_for_the_batches_handed_out(tmp_path):
    shard = write_pairs(tmp_path, [10], {2: "", 5: b"\xff", 9: ""})
    stream = cheap_stream(config(shard, 2, shuffle_buffer=1))
    expected = [  # (batch, samples read, of which without caption, unreadable), worked out by hand
        ([0, 1], 2, 0, 0),
        ([3, 4], 5, 1, 0),
        ([6, 7], 8, 1, 1),
        ([8, 0], 11, 2, 1),
        ([1, 3], 14, 3, 1),
        ([4, 6], 17, 3, 2),
    ]
    for batch, (numbers_, read, blank, unreadable) in zip(stream, expected, strict=False):
        assert numbers(batch) == numbers_
        assert stream.state.seen.read == read
        assert stream.state.seen.skipped == Counter({"no caption": blank, "unreadable text": unreadable})


def test_the_state_is_plain_json_and_comes_back_the_same(some_bad):
    stream = cheap_stream(config(some_bad, workers=2))
    take(stream, 5)
    plain = json.loads(json.dumps(stream.state.to_plain()))
    assert StreamState.from_plain(plain) == stream.state
    assert (plain["turn"], plain["workers"], sorted(plain["positions"])) == (1, 2, ["0", "1"])


@THREE_WORKERS
@pytest.mark.parametrize("before, after", [(1, 2), (2, 1), (2, 3), (3, 0)])
def test_another_number_of_workers_is_refused(forty, before, after):
    """Their shares would be others: samples would be missed or come twice."""
    stream = cheap_stream(config(forty, workers=before))
    take(stream, 1)
    with pytest.raises(DataError, match=f"started with {before} data workers.*now {max(1, after)}.*same number"):
        cheap_stream(config(forty, workers=after), stream.state)


def test_none_and_one_worker_may_change_places(forty):
    whole = take(cheap_stream(config(forty)), 9)
    stream = cheap_stream(config(forty))
    assert take(stream, 4) == whole[:4]
    assert take(cheap_stream(config(forty, workers=1), stream.state), 5) == whole[4:]


# Bad data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_skipped_and_counted_by_reason(some_bad, workers):
    stream = cheap_stream(config(some_bad, 1, workers=workers))
    seen = {number for batch in take(stream, 3 * len(USABLE)) for number in batch}
    assert seen == USABLE
    seen = stream.state.seen
    assert set(seen.skipped) == set(REASONS)
    assert seen.read == 3 * len(USABLE) + seen.skipped.total()
    assert 2 * REASONS.total() <= seen.skipped.total() <= 4 * REASONS.total()
    assert seen.damaged == {some_bad[4]: "unexpected end of data"}


def test_the_last_sample_of_a_truncated_shard_does_not_take_the_text_of_the_next_shard(tmp_path):
    """Shards whose keys begin anew, as plain pairs often have them; one is cut between an image and its text."""
    for number, colour in enumerate((RED, BLUE)):
        picture = encoded(Image.new("RGB", (90, 90), colour), "BMP")
        write_tar(tmp_path / f"{number}.tar", pair("0000", f"number {number}", picture))
    os.truncate(tmp_path / "0.tar", 512 + (len(picture) + 511) // 512 * 512 + 514)

    def note(record, seed):
        found.add((record.image.getpixel((0, 0)), record.caption))
        return number_and_draw(record, seed)

    found = set()
    stream = BatchStream(config(find_shards(str(tmp_path)), 1, max_bad_fraction=0.9), note, stack)
    take(stream, 4)
    assert found == {(BLUE, "number 1")}
    assert stream.state.seen.skipped == {}  # what the cut has taken the text from is part of the damage
    assert stream.state.seen.damaged == {str(tmp_path / "0.tar"): "unexpected end of data"}


@HANGS
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "limit, message", [(0.01, "5 of 5 samples are bad \\(no caption 5\\)"), (1.0, "worker 0 hold no usable sample")]
)
def test_data_that_is_bad_throughout_is_an_error(tmp_path, workers, limit, message):
    shards = write_pairs(tmp_path, [5] * max(1, workers), dict.fromkeys(range(10), ""))
    with pytest.raises(DataError, match=message):
        take(cheap_stream(config(shards, workers=workers, max_bad_fraction=limit)), 1)


@HANGS
@pytest.mark.parametrize("workers", [0, 1])
def test_shards_without_samples_are_an_error(tmp_path, workers):
    shards = [str(write_tar(tmp_path / f"{i}.tar", [])) for i in range(2)]
    with pytest.raises(DataError, match="data worker 0 hold no usable sample"):
        take(cheap_stream(config(shards, workers=workers)), 1)


@HANGS
@pytest.mark.parametrize(
    "content, why", [(b"", "it is an empty file"), (b"no tar" * 999, "it does not begin as a tar does")]
)
def test_files_that_are_no_shards_are_an_error(tmp_path, content, why):
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"data worker 0 hold no usable sample: .*damaged: {tmp_path}/.*tar: {why}"):
        take(cheap_stream(config(find_shards(str(tmp_path)))), 1)
    with pytest.raises(DataError, match=f"1 shard is damaged, .*max_bad_shards = 0 allows.*: {tmp_path}/.*tar: {why}"):
        take(cheap_stream(config(find_shards(str(tmp_path)), max_bad_shards=0)), 1)


@pytest.mark.slow
@HANGS
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_damaged_shards_are_counted_apart_and_named_once(tmp_path, workers, cut):
    """Six shards of forty samples; what is lost is no share of samples, of which nobody knows how many there were."""
    shards = write_pairs(tmp_path, [40] * 6)
    for shard in shards[:cut]:
        os.truncate(shard, 2048 * 4)
    settings_ = config(shards, 8, workers=workers, max_bad_fraction=0.0)
    for allowed in range(3):
        stream = cheap_stream(replace(settings_, max_bad_shards=allowed))
        if allowed >= cut:
            found = {number for batch in take(stream, 80) for number in batch}
            assert found == set(range(240)) - {n for i in range(cut) for n in range(40 * i + 4, 40 * i + 40)}
            why = "it breaks off before the mark of its end"
            assert stream.state.seen.damaged == dict.fromkeys(shards[:cut], why)
            assert stream.state.seen.skipped == {}
        else:
            with pytest.raises(DataError, match=f"{allowed + 1} shards? .*damaged.*data.max_bad_shards = {allowed} "):
                take(stream, 80)


@HANGS
def test_shards_that_vanish_are_an_error(tmp_path):
    shards = write_pairs(tmp_path, [5, 5])
    stream = cheap_stream(config(shards, batch_size=5))
    assert len(take(stream, 2)) == 2
    for shard in shards:
        Path(shard).unlink()
    with pytest.raises(DataError, match=r"1 shard is damaged, .*tar: No such file or directory"):
        take(cheap_stream(config(shards, batch_size=5, max_bad_shards=0)), 1)
    with pytest.raises(DataError, match="no usable sample"):  # within the limit
        take(stream, 9)


@HANGS
@pytest.mark.parametrize(
    "names, reason",
    [
        (("child.jpg", "child.txt", "numparents.txt", "parent000.jpg", "parent000.txt"), "names that do not fit"),
        (("image", "caption.json"), "no image"),
        (("npy", "txt"), "no image"),
    ],
)
def test_shards_of_another_layout_are_an_error(tmp_path, names, reason):
    picture = encoded(quadrants())
    files = [(f"{i}.{name}", b"a dog" if name.endswith("txt") else picture) for i in range(9) for name in names]
    shard = str(write_tar(tmp_path / "0.tar", files))
    with pytest.raises(DataError, match=f"9 of 9 samples are bad \\({reason} 9\\)"):
        take(cheap_stream(config([shard])), 1)


def test_the_limit_is_a_fraction_of_what_was_read(tmp_path):
    shards = write_pairs(tmp_path, [20, 20], {7: "", 31: ""})
    assert len(take(cheap_stream(config(shards, max_bad_fraction=0.05)), 60)) == 60
    with pytest.raises(DataError) as caught:
        take(cheap_stream(config(shards, max_bad_fraction=0.049)), 60)
    assert str(caught.value).startswith(
        "2 of 40 samples are bad (no caption 2), more than data.max_bad_fraction = 0.049 allows: "
        "repair the shards or raise the limit; for example no caption: 00"
    )
    assert str(caught.value).endswith(".tar: found png, an empty txt; expected txt, or json with 'caption'")


def test_a_large_shard_is_not_read_to_its_end_to_be_judged(tmp_path):
    shard = write_pairs(tmp_path, [2000], dict.fromkeys(range(0, 2000, 2), ""))
    with pytest.raises(DataError) as caught:
        take(cheap_stream(config(shard, batch_size=500, shuffle_buffer=50, max_bad_fraction=0.1)), 1)
    bad, read = (int(number) for number in str(caught.value).split(" samples")[0].split(" of "))
    assert 200 <= read < 220
    assert bad == pytest.approx(read / 2, rel=0.1)


def test_a_few_samples_after_a_resume_do_not_break_the_limit(tmp_path):
    """One bad of 60 is within 2 %, and stays so for a run resumed shortly before it."""
    shards = write_pairs(tmp_path, [60], {59: ""})
    settings_ = config(shards, 1, shuffle_buffer=1, max_bad_fraction=0.02)
    whole = recorded(cheap_stream(settings_), 100)
    assert resumed(settings_, whole[56][1], 43) == whole[57:]


def test_too_few_shards_for_the_readers_are_refused_at_once(forty):
    with pytest.raises(DataError, match="names 6 shards, but 2 processes × 4 workers need at least 8"):
        cheap_stream(config(forty, workers=4, world_size=2))


def test_an_error_of_a_worker_process_reaches_the_caller_with_its_message(tmp_path):
    shards = write_pairs(tmp_path, [4, 4], {number: "" for number in range(8) if number not in (0, 4)})
    stream = cheap_stream(config(shards, 1, workers=2, max_bad_fraction=0.1))
    with pytest.raises(DataError, match="3 of 4 samples are bad \\(no caption 3\\)"):
        take(stream, 20)
