import pytest
import yaml

from automl.config import SearchConfig, merge, parse, read_yaml
from automl.finetuning import FinetuneConfig
from compressors.errors import UserError


def test_default_configuration_is_the_embedded_search():
    config = SearchConfig()
    assert (config.net.name, config.data.name, config.agent.name) == ("resnet8_digits", "digits", "ddpg")
    assert parse(SearchConfig, config.model_dump(mode="json")) == config


def test_yaml_round_trip_of_the_whole_configuration(tmp_path):
    config = parse(SearchConfig, {"env": {"mode": "both", "targets": ["size=0.2"]}, "loop": {"episodes": 7}})
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert parse(SearchConfig, read_yaml(path)) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lop": {}}, ["Unknown setting 'lop'", "Did you mean 'loop'", "finetune"]),
        ({"loop": {"episode": 3}}, ["'loop.episode'", "Did you mean 'episodes'"]),
        ({"agent": {"ddpg": {"gama": 1}}}, ["'agent.ddpg.gama'", "'gamma'"]),
        ({"finetune": {"distill": {"temprature": 1}}}, ["'finetune.distill.temprature'", "'temperature'"]),
        ({"loop": {"episodes": 0}}, ["'loop.episodes'", "greater than or equal to 1", "got 0"]),
        ({"loop": {"episodes": "many"}}, ["'loop.episodes'", "integer", "'many'"]),
        ({"loop": 3}, ["'loop'", "3"]),
        ({"env": {"l2_weight": float("nan")}}, ["'env.l2_weight'", "finite", "nan"]),
        ({"finetune": {"training": {"lr": float("inf")}}}, ["'finetune.training.lr'", "finite"]),
        ({"env": {"activation_bits": True}}, ["activation_bits needs mode"]),
        ({"env": {"mode": "sparse"}}, ["'env.mode'", "'sparsity'", "'sparse'"]),
    ],
)
def test_wrong_settings_are_named_with_what_came(values, words):
    with pytest.raises(UserError) as error:
        parse(SearchConfig, values, "my.yaml")
    for word in ["my.yaml", *words]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_merge_lays_what_is_given_on_the_base_and_leaves_the_rest():
    base = {"loop": {"episodes": 5, "seed": 1}, "net": {"name": "a"}}
    assert merge(base, {"loop": {"seed": 2, "staleness": None}, "net": {"name": None}, "data": {"name": None}}) == {
        "loop": {"episodes": 5, "seed": 2},
        "net": {"name": "a"},
    }
    assert base["loop"] == {"episodes": 5, "seed": 1}


def test_one_finetune_setting_leaves_the_fronts_other_defaults():
    usual = FinetuneConfig().training
    given = parse(FinetuneConfig, {"training": {"epochs": 9}}).training
    assert given.epochs == 9 and given.lr == usual.lr


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a: [1", ["not YAML"]), (b"- 1\n- 2\n", ["name: value", "list"]), (b"\xff\xfe\x00", ["not YAML"])],
)
def test_files_that_are_no_settings(tmp_path, content, words):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_yaml(path)
    assert all(word in str(error.value) for word in ["bad.yaml", *words])
    assert "\n" not in str(error.value)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read the configuration .*nowhere.yaml"):
        read_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}
