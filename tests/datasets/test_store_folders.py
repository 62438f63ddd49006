"""What a folder of shards has: rows that can be read without the others, and what its manifest lacks."""

from stores import Rows, create, same

from sbi_models.datasets.coverage import FolderCoverage
from sbi_models.datasets.manifest import Manifest
from sbi_models.datasets.shards import shard_name, shard_ranges


def test_rows_are_read_without_the_shards_on_both_sides(tmp_path):
    """Rows up to, and from, a border of shards need no file beyond it."""
    store = create(tmp_path / "s")
    for piece in (store.pieces[0], store.pieces[2]):
        (store.folder / piece.file).unlink()
    same(store.rows(10, 20), Rows()(10, 20))


def test_names_of_shards_without_rows_are_none(tmp_path):
    """A file whose name says that it has no row, or less, is no shard."""
    for start, stop in ((5, 5), (9, 2), (0, 5)):
        (tmp_path / shard_name(start, stop)).touch()
    assert shard_ranges(tmp_path) == [(0, 5)]


def test_a_manifest_that_names_a_lost_shard_lacks_what_is_there(tmp_path):
    """A complete folder has no news; with a lost shard it has, though no more rows are asked for, and with
    more rows, too."""
    store = create(tmp_path / "s")
    origin = Manifest.read_if_readable(store.folder).origin
    assert not FolderCoverage(store.folder, 25, origin).has_news()
    assert FolderCoverage(store.folder, 26, origin).has_news()
    (store.folder / store.pieces[1].file).unlink()
    assert FolderCoverage(store.folder, 25, origin).has_news()
    assert FolderCoverage(store.folder, 20, origin).absent() == [(10, 20)]


def test_damaged_shards_are_named_in_the_order_of_their_rows(tmp_path):
    """Whatever their number, they are listed from the first row on, once each."""
    store = create(tmp_path / "s", n=48, rows_per_shard=4)
    origin = Manifest.read_if_readable(store.folder).origin
    for piece in store.pieces:
        (store.folder / piece.file).write_bytes(b"damaged")
    assert FolderCoverage(store.folder, 48, origin).broken == [(k, k + 4) for k in range(0, 48, 4)]
