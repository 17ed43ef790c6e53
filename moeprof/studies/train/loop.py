"""The training loop: updates until the recipe's steps are done or training is interrupted."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from moeprof.records.errors import MoeprofError
from moeprof.records.recipe.recipe import TrainSection
from moeprof.records.run.model_card import CurvePoint
from moeprof.records.system.signals import delayed
from moeprof.studies.progress import Progress
from moeprof.studies.train.corpus import Corpus, generator
from moeprof.studies.train.heldout import cross_entropies, mean, quality_text
from moeprof.studies.train.learner import Learner
from moeprof.studies.train.objective import losses_of
from moeprof.studies.train.optimizer import learning_rate, make_optimizers, set_learning_rate
from moeprof.studies.train.state import Course, load_state, save_state

SAVE_SECONDS = 120
"""CPU seconds between two saved states, so that a killed process loses at most this much work."""

Timer = Callable[[], float]


class Listener(Progress, Protocol):
    """Progress that can also show a line about the training."""

    def show_quality(self, text: str) -> None:
        """Shows the loss and the held-out quality."""
        ...


class Training:
    """A model in training; `run` may be interrupted at any time, and the state file keeps the progress."""

    def __init__(self, learner: Learner, train: TrainSection, corpus: Corpus, state: Path, mark: str, timer: Timer) -> None:
        self.learner, self.train, self.corpus = learner, train, corpus
        self.state, self.mark, self.timer = state, mark, timer
        self.optimizers = make_optimizers(learner, train)
        self.course = load_state(state, learner.model, self.optimizers, mark) if state.exists() else Course()
        self.heldout = corpus.heldout(train.heldout_sequences)
        self.spent_before, self.started = self.course.cpu_seconds, timer()

    def run(self, listener: Listener) -> Course:
        """Runs all remaining updates; saves a state if it is interrupted."""
        listener.stage("training", self.train.steps)
        for _ in range(self.course.step):
            listener.advance()
        self.save()  # finds out now, and not in half an hour, whether the disk is full
        with delayed() as end_if_asked:
            try:
                while self.course.step < self.train.steps:
                    self.update()
                    self.evaluate_and_save_if_due(listener)
                    listener.advance()
                    end_if_asked()  # between updates, so that half of one is never saved
            finally:
                self.save()
        return self.course

    def update(self) -> None:
        """One step of the optimizers, whose loss and tokens are added to the course."""
        course, number = self.course, self.course.step
        lesson = self.corpus.lesson(number)
        masks = torch.Generator().manual_seed(int(generator(self.train, number).integers(2**62)))
        losses = losses_of(self.learner, lesson, masks)
        self.learner.model.zero_grad()
        torch.autograd.backward(losses.total(self.train))
        torch.nn.utils.clip_grad_norm_(self.learner.model.parameters(), self.train.clip_norm)
        set_learning_rate(self.optimizers, learning_rate(self.train, number))
        for optimizer in self.optimizers:
            optimizer.step()
        course.step, course.tokens = number + 1, course.tokens + lesson.num_tokens
        course.recent.append(losses.cross_entropy.item())

    def evaluate_and_save_if_due(self, listener: Listener) -> None:
        """Evaluates, saves the state and checks the CPU budget, each if it is due."""
        course, train = self.course, self.train
        if course.step % train.evaluate_every == 0 or course.step == train.steps:
            heldout = cross_entropies(self.learner, self.heldout)
            course.curve.append(CurvePoint(course.step, course.tokens, mean(course.recent), heldout))
            course.recent = []
            listener.show_quality(f"loss {course.curve[-1].loss:.3f}, held out {quality_text(heldout)}")
        before, course.cpu_seconds = course.cpu_seconds, self.spent_before + self.timer() - self.started
        if before // SAVE_SECONDS != course.cpu_seconds // SAVE_SECONDS:
            self.save()
        if course.cpu_seconds > 60 * train.cpu_minutes and course.step < train.steps:
            raise MoeprofError(
                f"training: train.cpu_minutes {train.cpu_minutes:g} are used up after {course.step} of {train.steps} steps",
                f"The state is kept in {self.state}; lower train.steps and start again, or use a faster machine.",
            )

    def save(self) -> None:
        """Saves the current state."""
        save_state(self.state, self.learner.model, self.optimizers, self.course, self.mark)


process_time: Timer = time.process_time
