"""Selections of samples, and the blocks of the store."""

import pytest
import torch

from datafiles import random_data
from gauntlet.bench.data.samples.dataset import BLOCK, block_digest, blocks
from gauntlet.bench.data.samples.in_memory import from_arrays
from gauntlet.bench.data.samples.selection import select

# selection


@pytest.fixture(scope="module")
def thousand():
    images = torch.arange(1000).view(1000, 1, 1, 1) / 1000
    return from_arrays(images, torch.arange(1000) % 10, ids=[f"s{i:03d}" for i in range(1000)])


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (None, range(1000)),
        ("500", range(500)),
        (3, range(3)),
        ("0:500", range(500)),
        (" 20 : 30 ", range(20, 30)),
        (":7", range(7)),
        ("990:", range(990, 1000)),
        ("1000", range(1000)),
    ],
)
def test_a_number_or_a_slice_selects_and_positions_are_kept(thousand, samples, expected):
    data = select(thousand, samples)
    assert data.positions == tuple(expected)
    assert data.ids == tuple(f"s{i:03d}" for i in expected)
    assert torch.equal(data.images.flatten(), torch.tensor(list(expected)) / 1000)
    assert data.labels.tolist() == [i % 10 for i in expected]
    assert data.classes == 10


def test_a_stratified_selection_takes_the_first_of_each_class_in_the_order_of_the_data(thousand):
    assert select(thousand, "stratified:30").positions == tuple(range(30))
    labels = torch.tensor([2, 2, 0, 2, 1, 1, 0, 0, 1])
    data = from_arrays(torch.zeros(9, 1, 2, 2), labels)
    assert select(data, "stratified:6").positions == (0, 1, 2, 4, 5, 6)
    assert select(data, " stratified: 3 ").labels.tolist() == [2, 0, 1]


def test_a_selection_of_a_selection_keeps_the_places_in_the_full_set(thousand):
    assert select(select(thousand, "100:200"), "5:7").positions == (105, 106)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("1001", "asks for more than the 1000 samples"),
        ("900:1001", "asks for more"),
        ("1000:", "asks for more"),
        ("0", "is empty"),
        ("stratified:1001", "write stratified:1000 or stratified:1010"),
        ("stratified:7", "write stratified:10$"),
        ("stratified:1010", "class 0 has 100: write at most stratified:1000"),
        ("stratified:0", "not understood"),
        ("stratified:x", "not understood"),
        ("7:7", "is empty"),
        ("9:7", "is empty"),
        ("-5", "negative"),
        (-5, "negative"),
        ("-5:", "negative"),
        ("3:-1", "negative"),
        ("0:100:2", "a step"),
        ("1.5", "neither a number, a slice nor a readable file"),
        ("", "neither a number"),
        ("no_such_file.txt", "neither a number"),
    ],
)
def test_a_selection_that_is_empty_negative_too_large_or_meaningless_is_refused(thousand, samples, message):
    with pytest.raises(ValueError, match=message):
        select(thousand, samples)


def test_a_file_of_ids_keeps_its_order_and_may_hold_comments(thousand, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("# hard ones\ns007\n\n  s003  # a three\r\ns900\n")
    data = select(thousand, str(path))
    assert data.ids == ("s007", "s003", "s900")
    assert data.positions == (7, 3, 900)
    assert data.labels.tolist() == [7, 3, 0]


def test_a_file_of_ids_may_begin_with_a_byte_order_mark(thousand, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes(b"\xef\xbb\xbfs007\r\ns003\r\n")
    assert select(thousand, str(path)).ids == ("s007", "s003")


def test_an_id_with_a_hash_is_no_comment(tmp_path):
    data = from_arrays(*random_data(3), ids=["#1/a.png", "b #2.png", "c"])
    path = tmp_path / "ids.txt"
    path.write_text("b #2.png\n#1/a.png\n# c\n")
    assert select(data, str(path)).positions == (1, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("s001\ns1O2\n", r"ids\.txt:2: no sample has the id 's1O2'; did you mean s"),
        ("qqqqqqqq\n", "ids look like 's000'"),
        ("s001\n\ns001\n", r"ids\.txt:3: id 's001' is already in line 1"),
        ("# nothing\n\n", "has no ids"),
        (b"\xff\xfe\x00", r"ids\.txt' cannot be read: it is UTF-16 text .*: save it as UTF-8"),
    ],
)
def test_a_file_of_ids_with_a_fault_is_refused_with_its_line(thousand, tmp_path, content, message):
    path = tmp_path / "ids.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        select(thousand, str(path))


# blocks


def test_blocks_lie_on_a_fixed_grid_over_the_full_set(thousand):
    data = select(thousand, "250:420")
    assert [[data.positions[i] for i in block] for block in blocks(data)] == [
        list(range(250, 300)),
        list(range(300, 400)),
        list(range(400, 420)),
    ]


def test_blocks_come_in_order_of_first_appearance_and_hold_every_sample_once(thousand, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("s950\ns101\ns003\ns901\ns150\n")
    assert blocks(select(thousand, str(path))) == [[0, 3], [1, 4], [2]]
    assert sorted(i for block in blocks(thousand) for i in block) == list(range(1000))
    assert {len(block) for block in blocks(thousand)} == {BLOCK}


def test_a_larger_selection_finds_the_digests_of_the_smaller_one_again(thousand):
    few, many = select(thousand, "500"), select(thousand, "900")
    small = [block_digest(few, block) for block in blocks(few)]
    large = [block_digest(many, block) for block in blocks(many)]
    assert large[:5] == small
    assert len(set(large)) == 9


def test_a_digest_changes_with_a_pixel_a_label_an_id_the_order_the_shape_and_the_type():
    images, labels = random_data(4, 1, 6, 6)
    base = from_arrays(images, labels, ids=["ab", "c", "d", "e"])
    pixel, label = images.clone(), labels.clone()
    pixel[2, 0, 0, 0] = torch.nextafter(pixel[2, 0, 0, 0], torch.tensor(0.0))
    label[1] = 2
    others = [
        from_arrays(pixel, labels, ids=base.ids),
        from_arrays(images, label, ids=base.ids),
        from_arrays(images, labels, ids=["a", "bc", "d", "e"]),
        from_arrays(images.view(4, 1, 4, 9), labels, ids=base.ids),
        from_arrays(images.double(), labels, ids=base.ids),
    ]
    order = [0, 1, 2, 3]
    digests = [block_digest(one, order) for one in (base, *others)]
    digests += [block_digest(base, [1, 0, 2, 3]), block_digest(base, [0, 1, 2])]
    assert len(set(digests)) == len(digests)
    assert block_digest(from_arrays(images.numpy(), labels.numpy(), ids=base.ids), range(4)) == digests[0]


def test_a_blocks_digest_is_the_same_on_every_machine_and_in_every_version():
    data = from_arrays(torch.tensor([0.0, 0.25, 0.5, 1.0]).view(2, 1, 1, 2), [1, 0], ids=["a", "b"])
    assert block_digest(data, [0, 1]) == "24759797c058f1c134d76eeb450266168c00243e0f6d6a9f9edd75436d9dab72"
