import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypclip.data.shards import bad_shards_allowed, find_shards, share_of
from hypclip.errors import DataError
from tests.support.data import write_tar

# Finding --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name in ("001.tar", "000.tar", "010.tar", "manifest.json", "b/000.tar"):
        write_tar(tmp_path / name, [])
    (tmp_path / "none").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("", ["000.tar", "001.tar", "010.tar"]),
        ("001.tar", ["001.tar"]),
        ("00*.tar", ["000.tar", "001.tar"]),
        ("*/*.tar", ["b/000.tar"]),
        ("0?0.tar", ["000.tar", "010.tar"]),
        ("*", ["000.tar", "001.tar", "010.tar", "manifest.json"]),
        ("{000..001}.tar", ["000.tar", "001.tar"]),
        ("{b/000,010}.tar", ["010.tar", "b/000.tar"]),
    ],
)
def test_a_spec_names_files_folders_patterns_and_ranges(folder, spec, expected):
    assert find_shards(f"{folder}/{spec}") == [f"{folder}/{name}" for name in expected]


def test_a_list_is_sorted_and_without_repeats(folder):
    spec = [f"{folder}/010.tar", str(folder), f"{folder}/b", f"{folder}/*.tar"]
    assert find_shards(spec) == [f"{folder}/{name}" for name in ("000.tar", "001.tar", "010.tar", "b/000.tar")]


def test_a_relative_pattern_is_of_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_shards("00*.tar") == ["000.tar", "001.tar"]
    assert find_shards("b/../*1.tar") == ["b/../001.tar"]


def test_urls_are_taken_as_they_are():
    assert find_shards("https://host/{00..02}.tar") == [f"https://host/{i:02}.tar" for i in range(3)]
    assert find_shards(["pipe:aws s3 cp s3://b/x.tar -"]) == ["pipe:aws s3 cp s3://b/x.tar -"]


def test_a_file_is_a_file_even_when_its_name_looks_like_a_pattern(tmp_path):
    path = write_tar(tmp_path / "[0]*.tar", [])
    assert find_shards(str(path)) == [str(path)]


@pytest.mark.parametrize(
    "spec, message",
    [
        ("missing.tar", "there is no shard {folder}/missing.tar"),
        ("{000..002}.tar", "there is no shard {folder}/002.tar"),
        ("x*.tar", "nothing matches {folder}/x*.tar"),
        ("none", "there is no .tar file in {folder}/none"),
        ("{000..00", "cannot expand the braces"),
    ],
)
def test_what_is_not_there_is_named(folder, spec, message):
    with pytest.raises(DataError) as caught:
        find_shards(f"{folder}/{spec}")
    assert f"data.shards: {message.format(folder=folder)}" in str(caught.value)


def test_a_folder_is_all_its_shards_compressed_ones_too_and_no_hidden_files(tmp_path):
    for name in ("0.tar", "1.tar.gz", "2.tgz", "3.TAR", "._0.tar", "x.json", "4.tar/inside.tar", "5.tar.zst"):
        write_tar(tmp_path / name, [])
    found = ("0.tar", "1.tar.gz", "2.tgz", "3.TAR", "5.tar.zst")
    assert find_shards(str(tmp_path)) == [f"{tmp_path}/{name}" for name in found]


def test_a_pattern_matches_hidden_files_only_if_it_says_so(tmp_path):
    for name in ("0.tar", "._0.tar", ".hidden.tar"):
        write_tar(tmp_path / name, [])
    assert find_shards(f"{tmp_path}/*.tar") == [f"{tmp_path}/0.tar"]
    assert find_shards(f"{tmp_path}/.h*.tar") == [f"{tmp_path}/.hidden.tar"]


@pytest.mark.parametrize("spec", ["", "/*.tar", "/*"])
def test_a_link_to_nothing_is_named_and_not_left_out(folder, spec):
    (folder / "002.tar").symlink_to("blobs/gone")
    with pytest.raises(DataError, match=r"002.tar is a link to blobs/gone, which is not there"):
        find_shards(f"{folder}{spec}")
    (folder / "002.tar").unlink()
    (folder / "002.tar").symlink_to(folder / "001.tar")
    (folder / "notes.txt").symlink_to("gone")
    assert f"{folder}/002.tar" in find_shards(str(folder))


def test_a_shard_that_is_named_in_two_ways_is_one(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_shards(["./000.tar", "000.tar", "b//000.tar", "."]) == ["000.tar", "001.tar", "010.tar", "b/000.tar"]


@pytest.mark.parametrize("spec", ["", " ", ["000.tar", ""]])
def test_an_empty_name_is_not_the_working_directory(folder, monkeypatch, spec):
    monkeypatch.chdir(folder)
    with pytest.raises(
        DataError, match=r"--shards: .* names no shard: an empty name, as of a variable that is not set"
    ):
        find_shards(spec, "--shards")


def test_a_name_in_the_encoding_of_an_old_system_is_refused(tmp_path):
    write_tar(tmp_path / "caf\udce9.tar", [])
    with pytest.raises(DataError, match="is not valid Unicode: rename it"):
        find_shards(str(tmp_path))


def test_shards_a_folder_deeper_are_pointed_at(tmp_path):
    write_tar(tmp_path / "part-0" / "0.tar", [])
    with pytest.raises(DataError) as caught:
        find_shards(str(tmp_path))
    assert str(caught.value).endswith(f"in {tmp_path}, but there are some below it: {tmp_path}/*/*.tar")
    assert find_shards(f"{tmp_path}/*/*.tar") == [f"{tmp_path}/part-0/0.tar"]


def test_no_file_may_be_damaged_and_of_addresses_one_in_a_hundred():
    files, urls = [f"{i}.tar" for i in range(500)], [f"https://host/{i}.tar" for i in range(101)]
    allowed = [bad_shards_allowed(shards) for shards in (files, urls[:1], urls[:100], urls, files + urls)]
    assert allowed == [0, 0, 1, 2, 2]
    assert bad_shards_allowed(["pipe:cat x.tar", "pipe:cat y.tar"]) == 1


def test_no_spec_is_refused():
    with pytest.raises(DataError, match=r"\[\] names no shard"):
        find_shards([])


# Sharing --------------------------------------------------------------------------------------------------------------

WHO = {"seed": st.integers(-(2**63), 2**63), "epoch": st.integers(0, 10**6)}


def shares(shards, seed, epoch, world_size, workers):
    return [
        share_of(shards, seed=seed, epoch=epoch, rank=rank, world_size=world_size, worker=worker, workers=workers)
        for rank in range(world_size)
        for worker in range(workers)
    ]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 40), WHO["seed"], WHO["epoch"])
def test_shares_are_disjoint_even_and_cover_every_shard(world_size, workers, more, seed, epoch):
    shards = [f"{i}.tar" for i in range(world_size * workers + more)]
    all_shares = shares(shards, seed, epoch, world_size, workers)
    assert sorted(shard for share in all_shares for shard in share) == sorted(shards)
    sizes = [len(share) for share in all_shares]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert all_shares == shares(shards, seed, epoch, world_size, workers)


@given(st.integers(1, 4), st.integers(1, 4), WHO["seed"], WHO["epoch"])
def test_a_share_does_not_hang_on_global_randomness(world_size, workers, seed, epoch):
    shards = [f"{i}.tar" for i in range(16)]
    before = shares(shards, seed, epoch, world_size, workers)
    random.seed(seed + 1)
    assert shares(shards, seed, epoch, world_size, workers) == before


def test_order_and_share_differ_by_epoch_and_by_seed():
    shards = [f"{i}.tar" for i in range(20)]
    orders = {tuple(shares(shards, seed, epoch, 1, 1)[0]) for seed in range(5) for epoch in range(20)}
    assert len(orders) == 100
    first_share = {tuple(sorted(shares(shards, 0, epoch, 2, 2)[0])) for epoch in range(20)}
    assert len(first_share) > 15


def test_every_shard_comes_to_every_reader_about_as_often():
    shards = [f"{i}.tar" for i in range(8)]
    counts = dict.fromkeys(shards, 0)
    for epoch in range(2000):
        for shard in share_of(shards, seed=3, epoch=epoch, rank=1, world_size=2, worker=1, workers=2):
            counts[shard] += 1
    # Each count is binomial (2000, 1/4): standard deviation 19.4, 5 of which are 97.
    assert all(abs(count - 500) < 97 for count in counts.values())


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_too_few_shards_are_refused_to_every_reader(world_size, workers, data):
    count = data.draw(st.integers(0, world_size * workers - 1))
    for rank in range(world_size):
        for worker in range(workers):
            with pytest.raises(DataError) as caught:
                share_of(
                    ["x.tar"] * count, seed=0, epoch=0, rank=rank, world_size=world_size, worker=worker, workers=workers
                )
            message = str(caught.value)
            assert f"names {count} shards, but {world_size} processes × {workers} workers" in message
            assert f"at least {world_size * workers}: worker {worker} of process {rank}" in message
            assert "lower data.workers" in message
