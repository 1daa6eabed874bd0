"""YAML of strangers: read, or refused in one sentence, quickly and in little memory."""

import pytest
from warpseg.trainers.engine.yaml_text import read_yaml

LEVELS = "".join(f", &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]" for i in range(8))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a: [ &a [x,x,x,x,x,x,x,x,x]{LEVELS} ]", "unfolds to more than 10000 values"),
        ("a: &a [*a]", "unfolds to more than 10000 values"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        ("seed: 2001-99-99", r"is no YAML: month must be in 1\.\.12"),
        ("a: 1\nb: 2\na: 3", r"is no YAML \(line 1\): 'a' is set twice"),
        ("\t- x", r"is no YAML \(line 1\): found character"),
        ("? [a]\n: 1", "unhashable key"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("seed: !!timestamp x", "is no YAML"),
        ("x" * 2_000_000, "it has 2000000 characters"),
    ],
)
def test_what_is_no_plain_file_of_settings_is_refused(text, told):
    with pytest.raises(ValueError, match=told) as error:
        read_yaml(text, "mine.yaml")
    assert str(error.value).startswith("mine.yaml ")
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_settings_are_read_and_anchors_may_repeat_a_little():
    assert read_yaml("a: &x [1, 2]\nb: *x\nlr: 1.0e-3", "f") == {
        "a": [1, 2],
        "b": [1, 2],
        "lr": 1e-3,
    }
