"""Greedy decoding settles which tokens are fed; timed rounds feed the same ones again, whatever the model prefers."""

from typing import Any

import pytest
from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.workloads.batches import pad
from moeprof.workloads.episodes import ForwardEpisode, num_tokens
from moeprof.workloads.tokenizers import EOS, PAD

from .script import Script, episode_of, reals


def test_what_a_model_says_is_what_it_is_fed_next() -> None:
    script, episode = Script([5, 6, 7, 8, 9], [15, 16, 17, 18, 19]), episode_of(2)
    episode.settle(script)
    assert script.fed == [[5, 15], [6, 16], [7, 17], [8, 18]]
    assert reals(episode.steps) == [None] * 4


def test_every_step_knows_its_number_its_tokens_and_where_they_stand() -> None:
    episode = episode_of(2)
    episode.settle(Script([5, 6, 7, 8, 9], [15, 16, 17, 18, 19]))
    for number, step in enumerate(episode.steps):
        assert (step.phase, step.index, step.domain) == ("decode", 100 + number, "prose")
        assert step.sequence_T is not None
        assert step.position_T is not None
        assert step.token_T is not None
        assert step.sequence_T.tolist() == [30, 31]
        assert step.position_T.tolist() == [7 + number] * 2
        assert step.token_T.tolist() == [5 + number, 15 + number]


def test_a_sentence_that_ends_is_padding_from_then_on() -> None:
    script, episode = Script([5, EOS, 9, 9, 9], [15, 16, 17, EOS, 19], [8, 8, 8, 8, 8]), episode_of(3)
    episode.settle(script)
    assert script.fed == [[5, 15, 8], [PAD, 16, 8], [PAD, 17, 8], [PAD, PAD, 8]]
    assert reals(episode.steps) == [None, [False, True, True], [False, True, True], [False, False, True]]
    assert num_tokens(episode) == 3 + 2 + 2 + 1


def test_an_ended_sentence_stays_ended_whatever_it_says() -> None:
    script, episode = Script([5, EOS, 6, 7, 8], [9, 9, 9, 9, 9]), episode_of(2)
    episode.settle(script)
    assert [fed[0] for fed in script.fed] == [5, PAD, PAD, PAD]


def test_the_episode_ends_when_every_sentence_has() -> None:
    script, episode = Script([5, EOS, 9, 9, 9], [15, 16, EOS, 9, 9]), episode_of(2)
    episode.settle(script)
    assert script.fed == [[5, 15], [PAD, 16]]
    assert len(episode.steps) == 2


def test_the_episode_ends_at_its_bound() -> None:
    script, episode = Script([5] * 9), episode_of(1, max_tokens=3)
    episode.settle(script)
    assert len(script.fed) == 3


def test_without_a_stop_token_nothing_ends_early() -> None:
    script, episode = Script([5, EOS, EOS, EOS, EOS]), episode_of(1, stop=None)
    episode.settle(script)
    assert script.fed == [[5], [EOS], [EOS], [EOS]]
    assert reals(episode.steps) == [None] * 4


def test_rounds_are_fed_the_settled_tokens_whatever_the_model_prefers() -> None:
    episode, other = episode_of(2), Script([1, 2, 3, 4, 5], [11, EOS, 11, 11, 11])
    episode.settle(Script([5, 6, 7, 8, 9], [15, EOS, 17, 18, 19]))
    play = episode.ready(other)
    play()
    assert other.fed == [[5, 15], [6, PAD], [7, PAD], [8, PAD]]
    assert other.steps == episode.steps


def test_a_round_can_be_repeated_and_begins_anew_each_time() -> None:
    episode, script = episode_of(1), Script([5, 6, 7, 8, 9])
    episode.settle(script)
    play = episode.ready(script)
    results = [play().tolist() for _ in range(3)]
    assert results == [[9]] * 3
    assert script.fed == [[5], [6], [7], [8]]
    assert script.rewound == 3


def test_settling_again_forgets_what_was_settled_before() -> None:
    episode = episode_of(1)
    episode.settle(Script([5, 6, 7, 8, 9]))
    episode.settle(Script([3, EOS, 7, 8, 9]))
    assert [tokens.tolist() for tokens in episode.tokens_NB] == [[3]]
    assert [step.index for step in episode.steps] == [100]


def test_the_untimed_beginning_is_done_once_and_not_in_the_rounds() -> None:
    begun: list[Any] = []

    def begin(model: Any) -> Script:
        begun.append(model)
        return Script([5, 6, 7, 8, 9])

    episode = episode_of(1)
    episode.begin = begin
    episode.settle("model")
    play = episode.ready("twin")
    play()
    play()
    assert begun == ["model", "twin"]


@pytest.mark.parametrize("phase", ["score", "encode"])
def test_a_whole_batch_is_one_forward_pass(phase: str) -> None:
    batch = pad("prose", 3, [[4, 5, 6], [7]], None, 24)
    calls: list[tuple[Any, list[list[int]], Step]] = []

    def forward(model: Any, tokens_BL: Tensor, step: Step) -> Tensor:
        calls.append((model, tokens_BL.tolist(), step))
        return tokens_BL

    episode = ForwardEpisode(phase, batch, "cpu", forward)
    (step,) = episode.steps
    assert (step.phase, step.index, step.domain, episode.domain) == (phase, 3, "prose", "prose")
    assert reals([step]) == [[True, True, True, True, False, False]]
    assert num_tokens(episode) == 4
    episode.settle("model")
    play = episode.ready("model")
    assert calls == []
    play()
    play()
    assert calls == [("model", [[4, 5, 6], [7, PAD, PAD]], step)] * 2


def test_the_output_of_a_whole_batch_has_a_row_per_token() -> None:
    batch = pad("prose", 3, [[4, 5, 6], [7]], None, 24)
    episode = ForwardEpisode("score", batch, "cpu", lambda model, tokens_BL, step: tokens_BL[:, :, None] * model)
    (output_TV,) = episode.outputs(10)
    assert output_TV.tolist() == [[40], [50], [60], [70], [PAD], [PAD]]


def test_decoding_gives_the_output_of_every_step_and_begins_anew() -> None:
    begun: list[Script] = []

    def begin(script: Script) -> Script:
        begun.append(Script(*script.sentences))
        return begun[-1]

    episode = episode_of(2, max_tokens=3)
    episode.begin = begin
    episode.settle(Script([5, 6, EOS, 8], [15, 16, 17, 18]))
    outputs = list(episode.outputs(Script([1, 2, 3, 4], [11, 12, 13, 14])))
    assert [output_BV.argmax(dim=1).tolist() for output_BV in outputs] == [[2, 12], [3, 13], [4, 14]]
    assert begun[1].fed == [[5, 15], [6, 16], [PAD, 17]]  # the settled tokens, whatever the model prefers
    assert [output_BV.shape for output_BV in outputs] == [(2, 20)] * 3


def test_a_round_marks_its_beginning_and_the_end_of_every_step() -> None:
    episode, script, marks = episode_of(1), Script([5, 6, 7, 8, 9]), list[int]()
    episode.settle(script)
    play = episode.ready(script, lambda: marks.append(len(script.fed)))
    play()
    assert marks == [0, 1, 2, 3, 4]
