"""`secateur bench ablation`: the parts of `ddpg` that can be left out, and the searches that leave them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from automl.benchmarks.quality.identity import Facts
from automl.benchmarks.quality.plan import Job, Request, Settings, overlaid, plan
from compressors.errors import UserError, one_of
from envs.target import parse_targets

AGENT = "ddpg"
FULL = "full"
"""The variant that every other is compared with."""


@dataclass(frozen=True)
class Variant:
    """The agent with a part left out.

    Attributes:
        name: In folders and tables.
        without: What is missing, one line.
        settings: What makes it so.
        needs_range: Whether the part does nothing unless targets come from a range.
        pays_in: What the part is there for: a better accuracy, or fewer seconds for the same one.
    """

    name: str
    without: str
    settings: Settings = ()
    needs_range: bool = False
    pays_in: Literal["accuracy", "seconds"] = "accuracy"


_LEAST_LEARNING: Settings = (
    ("agent.ddpg.proposals", 0),
    ("agent.ddpg.imagined_episodes", 0),
    ("agent.ddpg.pretrain_episodes", 0),
    ("agent.ddpg.min_gradient_steps", 1),
    ("agent.ddpg.max_gradient_steps", 1),
)
_ALL = (
    Variant(FULL, "nothing is missing: the agent as configured"),
    Variant("no-surrogate", "no planning: the actor plays what it says", (("agent.ddpg.surrogate", False),)),
    Variant("no-actor", "planning alone: the actor proposes nothing", _LEAST_LEARNING),
    Variant("no-imagined", "nothing is learned from imagined episodes", (("agent.ddpg.imagined_episodes", 0),)),
    Variant(
        "no-pretrain", "nothing is learned before the first evaluation", (("agent.ddpg.pretrain_episodes", 0),)
    ),
    Variant(
        "no-relabel", "episodes count for their own target alone", (("agent.ddpg.relabel", False),), needs_range=True
    ),
    Variant("no-l2", "no reward before the end of an episode", (("env.l2_weight", 0.0),)),
    Variant("no-warm-start", "the warm-up plays random plans, not the profile's", (("agent.ddpg.warm_start", False),)),
    Variant("no-profile", "the actor does not see the profile's errors", (("env.profile_in_observation", False),)),
    Variant(
        "full-images", "no early stopping: each trial is judged on all images", (("evaluation.first_images", 0),),
        pays_in="seconds",
    ),
)  # fmt: skip
VARIANTS = {variant.name: variant for variant in _ALL}
"""All variants by name."""


def variant(name: str) -> Variant:
    """The variant called `name`.

    Raises:
        UserError: There is none; the message has the nearest.
    """
    if name not in VARIANTS:
        raise one_of("variant", name, VARIANTS)
    return VARIANTS[name]


def variants_of(names: Sequence[str]) -> list[Variant]:
    """Variants by name, each once, `full` first; `all` is every one.

    Raises:
        UserError: An unknown name, or none.
    """
    if not names:
        raise UserError(f"--variants must name at least one of {', '.join(VARIANTS)}, or be `all`.")
    found = [variant(FULL)]
    for name in names:
        found += VARIANTS.values() if name == "all" else [variant(name)]
    return list(dict.fromkeys(found))


def plan_ablation(request: Request, names: Sequence[str]) -> tuple[list[Job], list[str]]:
    """All searches of an ablation, seed by seed.

    Args:
        request: What is searched; its agents do not matter.
        names: Of variants, or `all`.

    Returns:
        The searches, and a line for people on each variant that would be the full agent again and is left out.

    Raises:
        UserError: Bad input, see `quality.plan.plan`; or every variant but `full` is left out.
    """
    chosen = variants_of(names)
    jobs: list[Job] = []
    notes: dict[str, None] = {}
    for full in plan(replace(request, agents=(AGENT,))):
        full = replace(full, cell=replace(full.cell, ablated=AGENT), variant=FULL)
        for one in chosen:
            job = replace(full, variant=one.name, settings=one.settings)
            why = _idle(one, job, full)
            if why:
                notes[f"{one.name} is left out for {full.cell.net}, {full.cell.target}: {why}."] = None
            else:
                jobs.append(job)
    if len(chosen) > 1 and all(job.variant == FULL for job in jobs):
        raise UserError(f"There is nothing to compare: {' '.join(notes)}")
    return jobs, list(notes)


def _idle(one: Variant, job: Job, full: Job) -> str:
    """Why a variant would be the full agent, or empty."""
    if one.name == FULL:
        return ""
    if one.needs_range and all(target.low == target.high for target in parse_targets(job.config.env.targets)):
        return "it matters only where the target is a range"
    return "the settings have nothing that it could leave out" if job.config == full.config else ""


def expected(name: str, facts: Facts) -> Facts:
    """What the searches of a variant must be made with.

    Args:
        name: The variant.
        facts: What the full agent's are made with.

    Raises:
        UserError: There is no such variant.
    """
    held = {"evaluation": "evaluator.evaluation"}
    settings = []
    for path, value in variant(name).settings:
        section, _, rest = path.partition(".")
        settings.append((f"{held.get(section, section)}.{rest}", value))
    return overlaid(facts, tuple(settings))
