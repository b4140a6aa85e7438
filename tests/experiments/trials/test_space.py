"""What `-S` and a YAML file say of the values of a sweep, and what is wrong with them."""

from pathlib import Path

import pytest
from imports import ROOT

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config import yaml12
from nanogpt2.experiments.trials.space import (
    apply,
    check_search,
    check_settings,
    read_axis,
    read_space,
    split,
)

VALUES = yaml12.read(ROOT / "params.yaml")


def test_a_grid_has_every_combination_and_the_last_key_changes_first() -> None:
    space = read_space(["learning_rate=1e-3,5e-4", "seed=7", "n_layer=4,6"])
    assert space.grid() == [
        ("learning_rate=1e-3", "seed=7", "n_layer=4"),
        ("learning_rate=1e-3", "seed=7", "n_layer=6"),
        ("learning_rate=5e-4", "seed=7", "n_layer=4"),
        ("learning_rate=5e-4", "seed=7", "n_layer=6"),
    ]
    assert space.varied == ["learning_rate", "n_layer"]


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("n_layer", "range(2,7,2)", ["2", "4", "6"]),  # as Python's, without its end
        ("dropout", "range(0,0.3,0.1)", ["0", "0.1", "0.2"]),  # exact, not 0.30000000000000004
        ("n_layer", "range(3,0,-1)", ["3", "2", "1"]),
        ("learning_rate", "log(1e-4,1e-2,3)", ["0.0001", "0.001", "0.01"]),
        ("max_iters", "log(100,1000,3)", ["100", "316", "1000"]),  # whole, as the schema wants
        ("optimizer", "choice(muon, adamw)", ["muon", "adamw"]),
        ("freeze", "[],[wte,wpe]", ["[]", "[wte,wpe]"]),
        ("sample.prompt", "'Once, upon',\"a\"", ["'Once, upon'", '"a"']),
        ("sample.stop", r"'a\',b',c", [r"'a\',b'", "c"]),
    ],
)
def test_values_are_listed_as_written_or_counted(key: str, text: str, values: list[str]) -> None:
    assert list(read_axis(key, text).texts) == values


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("range(1,0,1)", "range(start,stop,step) with a stop above start"),
        ("range(1,1)", "range(start,stop,step) with a stop above start"),
        ("range(1,2,-1)", "range(start,stop,step) with a stop below start"),
        ("range(1,9,0)", "range(start,stop,step) with a step other than 0"),
        ("range(1,1e9,1)", "range(start,stop,step) with at most 10,000 numbers"),
        ("range(0,1e300,1e-300)", "range(start,stop,step) with at most 10,000 numbers"),
        ("range(1)", "range(start,stop,step), without stop"),
        ("range(0,1e999999,1e-999999)", "range(start,stop,step), without stop"),
        ("log(0,1,3)", "log(first,last,count) with first above 0"),
        ("log(1e-999,1,3)", "log(first,last,count) with first above 0"),
        ("log(1,-1,3)", "log(first,last,count) with last above 0"),
        ("log(1,2,1)", "log(first,last,count) with a whole count from 2 to 10,000"),
        ("log(1,2,2.5)", "log(first,last,count) with a whole count from 2 to 10,000"),
        ("log(0,1)", "log(first,last,count)"),
        ("log(1,1e999,3)", "log(first,last,count)"),
        ("log(1,nan,3)", "log(first,last,count)"),
        ("uniform(2,1)", "uniform(low,high) with low below high"),
        ("uniform(1,2,3)", "uniform(low,high)"),
        ("loguniform(-1,1)", "loguniform(low,high) with low above 0"),
        ("loguniform(2,1)", "loguniform(low,high) with low below high"),
        ("loguniform(a,1)", "loguniform(low,high)"),
    ],
)
def test_a_bound_that_is_wrong_is_told(text: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as found:
        read_axis("learning_rate", text)
    assert str(found.value) == f"found {text}; allowed: {allowed}"


def test_what_is_split_at_commas_is_what_quotes_and_brackets_do_not_hold() -> None:
    assert split("a, (b,c),'d,(e', [f,{g,h}]") == ["a", "(b,c)", "'d,(e'", "[f,{g,h}]"]


def test_a_file_has_keys_as_params_has_them(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "learning_rate: [1e-3, 5e-4]\nn_layer: range(2,6,2)\ndropout: 0.1\n"
        'bias: [null, true]\nsample:\n  prompt: ["it\'s", plain]\n',
        encoding="utf-8",
    )
    axes = read_space([], file).axes
    assert {key: axis.texts for key, axis in axes.items()} == {
        "learning_rate": ("0.001", "0.0005"),
        "n_layer": ("2", "4"),
        "dropout": ("0.1",),
        "bias": ("null", "true"),
        "sample.prompt": (r"'it\'s'", "plain"),
    }
    changed = apply(VALUES, ["bias=null", r"sample.prompt='it\'s'", "sample.seed=3"])
    assert changed["bias"] is None
    assert (changed["sample"]["prompt"], changed["sample"]["seed"]) == ("it's", 3)
    assert VALUES["sample"]["seed"] != 3


def test_all_mistakes_of_all_trials_are_told_at_once_each_with_a_trial_that_has_it() -> None:
    space = read_space(["n_layr=1", "n_head=3,2", "learning_rate=0,x"])
    with pytest.raises(ConfigError) as found:
        check_settings(VALUES, space.grid())
    lines = str(found.value).splitlines()
    assert [line.split(":")[0] for line in lines].count("n_layr") == 1
    assert {line.split(":")[0] for line in lines} == {"n_layr", "n_head", "learning_rate"}
    assert lines[0] == (
        "n_layr: unknown key; did you mean n_layer?"
        " (with n_layr=1 n_head=3 learning_rate=0 and 3 more)"
    )
    with pytest.raises(ConfigError) as found:
        read_space(
            ["n_layer", "n_layer=log(1,2)", "dropout=uniform(1,0)", "a=1,,2", "seed=range(3,3)"]
        )
    assert len(str(found.value).splitlines()) == 5
    with pytest.raises(ConfigError, match=r"n_layer: stands twice"):
        read_space(["n_layer=1", "n_layer=2"])
    with pytest.raises(ConfigError, match="10,201 trials; allowed: at most 10,000"):
        read_space(["seed=range(0,101)", "n_layer=range(0,101)"]).grid()


def test_what_a_search_draws_from_is_checked_at_its_ends() -> None:
    good = read_space(["learning_rate=loguniform(1e-5,1e-1)", "n_layer=uniform(1,8)", "bias=true"])
    check_search(VALUES, good)
    with pytest.raises(ConfigError, match="--search N"):
        good.grid()
    bad = read_space(["dropout=uniform(0,2)", "tokenizer=uniform(1,2)", "nn=1", "n_layer=4,a"])
    with pytest.raises(ConfigError) as found:
        check_search(VALUES, bad)
    keys = [line.split(":")[0] for line in str(found.value).splitlines()]
    assert keys == ["dropout", "tokenizer", "nn", "n_layer"]
