"""Secrets at rest: authenticated, bound to their place, readable after a rotation of keys."""

import pytest

from lablet_common.secrets import SecretBox, SecretError, new_key_line


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(new_key_line("k1") + "\n")
    return path


def test_what_is_sealed_opens_again_and_is_not_in_clear(key_file):
    box = SecretBox.from_file(key_file)
    sealed = box.seal("correct horse", "worker/w1")
    assert "horse" not in sealed
    assert box.open(sealed, "worker/w1") == "correct horse"
    assert box.seal("correct horse", "worker/w1") != sealed


def test_a_value_moved_to_another_place_does_not_open(key_file):
    box = SecretBox.from_file(key_file)
    with pytest.raises(SecretError, match="belongs to something else"):
        box.open(box.seal("s", "worker/w1"), "worker/w2")


def test_a_changed_value_does_not_open(key_file):
    box = SecretBox.from_file(key_file)
    sealed = box.seal("secret", "x")
    key_id, _, body = sealed.partition(":")
    flipped = body[:-6] + ("A" if body[-6] != "A" else "B") + body[-5:]
    with pytest.raises(SecretError):
        box.open(f"{key_id}:{flipped}", "x")


@pytest.mark.parametrize("left", [0, 1, 8, 15, 16, 20, 40])
def test_what_is_left_of_a_cut_value_does_not_open(key_file, left):
    """Whoever opens one is ready for that error and for no other: anything else ends a loop, and the process with it."""
    box = SecretBox.from_file(key_file)
    key_id, _, body = box.seal("secret", "x").partition(":")
    with pytest.raises(SecretError, match="the secret of x was changed"):
        box.open(f"{key_id}:{body[:left]}", "x")


def test_after_a_rotation_old_values_open_and_new_ones_use_the_new_key(key_file):
    old = SecretBox.from_file(key_file).seal("s", "x")
    key_file.write_text(new_key_line("k2") + "\n" + key_file.read_text())
    box = SecretBox.from_file(key_file)
    assert box.open(old, "x") == "s"
    assert box.seal("s", "x").startswith("k2:")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "has no key"), ("k1:not base64!", "line 1"), ("k1:c2hvcnQ=", "5 bytes instead of 32")],
)
def test_a_bad_key_file_names_the_line_and_never_the_key(tmp_path, text, words):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(SecretError, match=words):
        SecretBox.from_file(path)


def test_two_keys_of_one_name_are_refused(key_file):
    """The older one would go on sealing: whoever changed the key for its sake would not have changed it."""
    key_file.write_text(f"{new_key_line('k1')}\n{key_file.read_text()}")
    with pytest.raises(SecretError, match=r"line 2 of .* is a second key 'k1'"):
        SecretBox.from_file(key_file)
    line = key_file.read_text().splitlines()[0]
    key_file.write_text(f"{line}\n{line}\n")
    assert SecretBox.from_file(key_file), "the same one twice is one"


def test_a_key_that_is_gone_is_named(key_file):
    sealed = SecretBox.from_file(key_file).seal("s", "x")
    other = SecretBox({"k9": b"1" * 32})
    with pytest.raises(SecretError, match="key 'k1', which the key file lacks"):
        other.open(sealed, "x")
