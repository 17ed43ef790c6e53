"""Recipes are found, read and overridden; a bad one gets two lines that name the file, the key and the remedy."""

from pathlib import Path

import pytest

from moeprof.records.errors import UsageError
from moeprof.records.recipe import files as recipe_files
from moeprof.records.recipe.files import builtin_names, find_recipe, load_recipe, recipe_folder

VALID = """
schema = 1
workload = "lm"

[model]
decoder_layers = 2
dim = 64
ffn_dim = 64
heads = 4
vocab_size = 260
experts = 8
moe_every = 2
activation = "gelu"
tokenizer = "bytes"

[gating]
top_k = 2
capacity_fraction = 0.5

[load]
batch_size = 2
sequence_length = 32
"""


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    """A recipe file without faults."""
    path = tmp_path / "own.toml"
    path.write_text(VALID)
    return path


def fault(reference: str | Path, *overrides: str) -> tuple[str, str]:
    """What the UsageError says, and the remedy."""
    with pytest.raises(UsageError) as caught:
        load_recipe(str(reference), overrides)
    assert str(caught.value).count("\n") == 1
    assert caught.value.exit_code == 2
    return caught.value.what, caught.value.remedy


def written(valid: Path, old: str, new: str) -> Path:
    """The valid recipe with one line changed."""
    assert VALID.count(old) == 1
    valid.write_text(VALID.replace(old, new))
    return valid


# Where recipes are


def test_the_packaged_copy_comes_before_the_checkout(tmp_path: Path) -> None:
    packaged, checkout = tmp_path / "moeprof" / "recipes", tmp_path / "recipes"
    checkout.mkdir()
    assert recipe_folder([packaged, checkout]) == checkout
    packaged.mkdir(parents=True)
    assert recipe_folder([packaged, checkout]) == packaged


def test_the_two_places_are_beside_the_code() -> None:
    root = Path(recipe_files.__file__).resolve().parents[3]
    assert [folder.resolve() for folder in recipe_files.RECIPE_FOLDERS] == [root / "moeprof" / "recipes", root / "recipes"]


def test_an_installation_without_recipes_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"built-in recipes are missing: neither .* nor .* exists"):
        recipe_folder([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("place", ["moeprof/recipes", "recipes"])
def test_a_built_in_name_is_found_in_either_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True)
    (folder / "lm-own.toml").write_text(VALID)
    candidates = [tmp_path / "moeprof" / "recipes", tmp_path / "recipes"]
    monkeypatch.setattr(recipe_files, "recipe_folder", lambda: recipe_folder(candidates))
    assert find_recipe("lm-own") == folder / "lm-own.toml"
    assert builtin_names() == ["lm-own"]
    assert load_recipe("lm-own").model.experts == 8


def test_the_eight_built_in_recipes_are_valid_and_listed_small_before_big() -> None:
    assert builtin_names() == ["hf-tiny", "lm-tiny", "lm-small", "lm-15b", "lm-52b", "mt-tiny", "mt-small", "mt-54b"]


@pytest.mark.parametrize(
    ("name", "experts", "top_k", "moe_every", "fraction"),
    [
        ("lm-small", 512, 2, 2, 0.05),
        ("lm-15b", 512, 2, 2, 0.05),
        ("lm-52b", 512, 2, 2, 0.05),
        ("mt-small", 128, 2, 4, 1.0),
        ("mt-54b", 128, 2, 4, 1.0),
    ],
)
def test_the_shapes_of_the_paper_are_kept(name: str, experts: int, top_k: int, moe_every: int, fraction: float) -> None:
    recipe = load_recipe(name)
    assert (recipe.name, recipe.workload) == (name, name[:2])
    assert (recipe.model.experts, recipe.model.moe_every) == (experts, moe_every)
    assert (recipe.gating.top_k, recipe.gating.capacity_fraction) == (top_k, fraction)
    assert recipe.description


def test_a_path_is_taken_as_it_is(valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_recipe(str(valid)) == valid
    monkeypatch.chdir(valid.parent)
    assert load_recipe("own.toml").name == "own"
    assert load_recipe("./own.toml").gating.capacity_fraction == 0.5


# Bounds


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.decoder_layers=2000000000", "model.decoder_layers"),
        ("model.experts=100000000", "model.experts"),
        ("model.dim=1000000000000", "model.dim"),
        pytest.param("gating.top_k=1" + "0" * 30, "gating.top_k", id="top_k"),
        ("parallel.ranks=1000000000000", "parallel.ranks"),
        ("load.batch_size=1" + "0" * 12, "load.batch_size"),
        ("budget.memory=99999999999999999999TiB", "budget.memory"),
        ("load.batches=10001", "load.batches: must be less than or equal to 10000, got 10001"),
        ("load.decode_steps=1000001", "load.decode_steps"),
        ("measure.warmup=10001", "measure.warmup"),
        ("measure.rounds=10001", "measure.rounds"),
        ("train.steps=1000001", "train.steps: must be less than or equal to 1000000, got 1000001"),
        pytest.param("load.batches=" + "9" * 5000, "load.batches", id="digits"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_built(valid: Path, override: str, key: str) -> None:
    assert f" {key}: " in f"{fault(valid, override)[0]}: "


def test_the_most_repetitions_that_are_allowed_are_accepted(valid: Path) -> None:
    recipe = load_recipe(
        str(valid), ["load.batches=10000", "measure.warmup=10000", "measure.rounds=10000", "train.steps=1000000"]
    )
    assert (recipe.load.batches, recipe.measure.warmup, recipe.measure.rounds, recipe.train.steps) == (
        10**4,
        10**4,
        10**4,
        10**6,
    )


def test_an_integer_of_thousands_of_digits_in_the_file_is_refused(valid: Path) -> None:
    assert "not valid TOML" in fault(written(valid, "dim = 64\nffn", "dim = " + "9" * 5000 + "\nffn"))[0]


# Names


@pytest.mark.parametrize("name", ["", "../../x", "..", "=cmd|", "a\\n::warning::b", "\\u001b[31m", "a" * 65])
def test_a_recipe_name_that_cannot_be_part_of_a_path_is_refused(valid: Path, name: str) -> None:
    valid.write_text(f'name = "{name}"\n{VALID}')
    what, _ = fault(valid)
    assert "name: " in what
    assert "is not a valid name" in what


@pytest.mark.parametrize("name", ["a\\n::warning::b", "../x", ""])
def test_a_domain_that_cannot_be_a_name_is_refused(valid: Path, name: str) -> None:
    valid.write_text(f'{VALID}\n[data.files]\n"{name}" = "a.txt"\n')
    assert "is not a valid name" in fault(valid)[0]
    assert "is not a valid name" in fault(written_domains(valid, name))[0]


def written_domains(valid: Path, name: str) -> Path:
    """The valid recipe with one chosen default domain."""
    valid.write_text(f'{VALID}\n[data]\ndomains = ["{name}"]\n')
    return valid


def test_a_file_with_a_long_name_gives_a_name_of_64_characters(valid: Path) -> None:
    assert load_recipe(str(valid.rename(valid.with_name("x" * 100 + ".toml")))).name == "x" * 64


# Overrides


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("load.batch_size=4", "load", "batch_size", 4),
        ("gating.capacity_fraction=0.07", "gating", "capacity_fraction", 0.07),
        ("gating.capacity_fraction=1", "gating", "capacity_fraction", 1.0),
        ("gating.padding=fixed", "gating", "padding", "fixed"),
        ('gating.padding="fixed"', "gating", "padding", "fixed"),
        ("load.phases=['decode']", "load", "phases", ["decode"]),
        ("budget.memory=1.5GiB", "budget", "memory", 1_610_612_736),
        ("budget.memory=4096", "budget", "memory", 4096),
        (" load.batch_size =4", "load", "batch_size", 4),
        ("routing.source=zipf:1.2,sorted,seed=3", "routing", "source", "zipf:1.2,sorted,seed=3"),
    ],
)
def test_an_override_is_read_as_toml_or_else_as_a_string(
    valid: Path, override: str, section: str, key: str, value: object
) -> None:
    assert getattr(getattr(load_recipe(str(valid), [override]), section), key) == value


def test_the_last_override_wins_and_top_level_keys_can_be_set(valid: Path) -> None:
    recipe = load_recipe(str(valid), ["load.batch_size=4", "load.batch_size=6", "description=mine"])
    assert (recipe.load.batch_size, recipe.description) == (6, "mine")


@pytest.mark.parametrize("override", ["", "load.batch_size", "=4", "load.=4", ".batch_size=4", "load..batch_size=4"])
def test_an_override_without_key_or_value_shows_the_form(valid: Path, override: str) -> None:
    what, remedy = fault(valid, override)
    assert what == f"--set {override}: not of the form SECTION.KEY=VALUE"
    assert remedy == "Example: --set gating.top_k=1"


def test_an_override_inside_a_value_is_refused(valid: Path) -> None:
    assert fault(valid, "model.dim.x=1")[0] == "--set model.dim.x=1: 'dim' is a value, not a section"


def test_an_override_is_one_key_only(valid: Path) -> None:
    with pytest.raises(UsageError):
        load_recipe(str(valid), ["load.batch_size=4\nload = 5"])


def test_an_override_that_nests_without_end_is_refused(valid: Path) -> None:
    fault(valid, "load.batch_size=" + "[" * 5000)


def test_files_start_at_the_recipe_and_overrides_at_the_working_directory(valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valid.write_text(VALID.replace("[gating]", 'checkpoint = "w.safetensors"\n[data.files]\nwiki = "../wiki.txt"\n[gating]'))
    elsewhere = valid.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(str(valid), ["data.files.ne=['a.ne', 'a.en']"])
    assert recipe.model.checkpoint == str(valid.parent / "w.safetensors")
    assert recipe.data.files == {
        "wiki": str(valid.parent.parent / "wiki.txt"),
        "ne": [str(elsewhere / "a.ne"), str(elsewhere / "a.en")],
    }


# Bad input


def test_an_unknown_built_in_name_gets_the_nearest_one() -> None:
    what, remedy = fault("lm-tny")
    assert what == "recipe 'lm-tny': unknown built-in recipe"
    assert remedy.startswith("Did you mean 'lm-tiny'? Use one of ")


def test_an_unknown_key_gets_file_key_and_nearest_known_name(valid: Path) -> None:
    what, remedy = fault(written(valid, "experts = 8", "experts = 8\nffn_dimm = 3"))
    assert what == f"recipe {valid}: model.ffn_dimm: unknown key"
    assert remedy.startswith("Did you mean 'ffn_dim'? Known here: activation, ")


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("gatng.top_k=1", "gatng", "gating"),
        ("load.batchsize=1", "load.batchsize", "batch_size"),
        ("shema=1", "shema", "schema"),
    ],
)
def test_an_unknown_key_of_an_override_is_named_too(valid: Path, override: str, key: str, nearest: str) -> None:
    what, remedy = fault(valid, override)
    assert what == f"recipe {valid}: {key}: unknown key"
    assert remedy.startswith(f"Did you mean {nearest!r}? ")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("top_k = 2", 'top_k = "2"', "gating.top_k: must be a valid integer, got '2'"),
        ("top_k = 2", "top_k = true", "gating.top_k: must be a valid integer, got True"),
        ("experts = 8", "experts = 8.0", "model.experts: must be a valid integer, got 8.0"),
        (
            'activation = "gelu"',
            'activation = "swish"',
            "model.activation: must be 'gelu', 'relu' or 'silu', got 'swish'",
        ),
        ("experts = 8\n", "", "model.experts: required key is missing"),
        (
            "capacity_fraction = 0.5",
            "capacity_fraction = 0.0",
            "gating.capacity_fraction: must be greater than 0, got 0.0",
        ),
        (
            "capacity_fraction = 0.5",
            "capacity_fraction = 1.5",
            "gating.capacity_fraction: must be less than or equal to 1, got 1.5",
        ),
        ("top_k = 2", "top_k = 9", "gating.top_k is 9, but model.experts is 8"),
        ("[load]", "[parallel]\nranks = 3\n[load]", "model.experts 8 is not a multiple of parallel.ranks 3"),
        ("schema = 1", "schema = 2", "schema: must be 1, got 2"),
    ],
)
def test_each_mistake_in_a_recipe_is_named_with_its_file(valid: Path, old: str, new: str, what: str) -> None:
    said, remedy = fault(written(valid, old, new))
    assert said == f"recipe {valid}: {what}"
    assert remedy


def test_a_budget_that_is_no_size_is_named_by_its_key(valid: Path) -> None:
    what, remedy = fault(valid, "budget.memory=lots")
    assert what.startswith(f"recipe {valid}: budget.memory: ")
    assert "'lots' is not a size such as 512MiB or 2GiB" in what
    assert "one of the two" not in remedy


def test_a_path_that_is_no_string_is_named_by_its_own_key(valid: Path) -> None:
    assert "data.files.x:" in fault(valid, "data.files.x=3")[0]


def test_a_section_that_is_no_section_is_named(valid: Path) -> None:
    what, _ = fault(valid, "gating=3")
    assert what.startswith(f"recipe {valid}: gating: ")
    assert "gatingsection" not in what


@pytest.mark.parametrize("content", [b"schema = ", b"[model\n", b"a = 1\na = 2\n"])
def test_what_is_no_toml_is_refused_with_its_place(valid: Path, content: bytes) -> None:
    valid.write_bytes(content)
    what, remedy = fault(valid)
    assert what.startswith(f"recipe {valid}: not valid TOML: ")
    assert remedy == "Fix that line."


def test_toml_that_nests_without_end_is_refused(valid: Path) -> None:
    valid.write_text("a = " + "[" * 5000)
    assert fault(valid)[0].startswith(f"recipe {valid}: not valid TOML")


def test_a_recipe_with_more_characters_than_any_is_refused_before_it_is_parsed(valid: Path) -> None:
    valid.write_text(VALID.ljust(recipe_files.MAX_CHARS, "\n"))
    assert load_recipe(str(valid)).model.dim == 64
    valid.write_text("no TOML".ljust(recipe_files.MAX_CHARS + 1, "\n"))
    assert fault(valid)[0] == f"recipe {valid}: 1,048,577 characters are more than the 1,048,576 of a recipe"


def test_an_empty_recipe_lacks_its_first_section(valid: Path) -> None:
    valid.write_text("")
    assert fault(valid)[0] == f"recipe {valid}: workload: required key is missing"


def test_a_recipe_that_is_not_utf8_is_refused(valid: Path) -> None:
    valid.write_bytes(f"# caf\u00e9\n{VALID}".encode("latin-1"))
    assert fault(valid)[0] == f"recipe {valid}: line 1, column 6: byte 0xe9 is not UTF-8"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_with_a_byte_order_mark_and_windows_line_ends_is_the_same(valid: Path, encoding: str) -> None:
    expected = load_recipe(str(valid))
    valid.write_bytes(VALID.replace("\n", "\r\n").encode(encoding))
    assert load_recipe(str(valid.rename(valid.with_name("own.TOML")))) == expected


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    what, remedy = fault(tmp_path / "none.toml")
    assert what == f"recipe {tmp_path}/none.toml: no such file or directory"
    assert remedy == "Give a built-in name or a readable .toml file."


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert fault(tmp_path)[0] == f"recipe {tmp_path}: is a directory"
