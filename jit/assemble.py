"""A lowered graph -> its recipe: storages and launches become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybrid.graph import every_equation

from .launch import Branch, Launch, Step, Storage
from .lower import Lowered
from .recipe import BranchRecipe, LaunchRecipe, LoopRecipe, Recipe, StorageRecipe

__all__ = ["make_recipe"]


def make_recipe(lowered: Lowered, kernels: Sequence[tuple[str, str]]) -> Recipe:
    """The lowered graph as plain data. `kernels` names the kernel of each launch."""
    storages: dict[Storage, int] = {}
    recipes: list[StorageRecipe] = []

    def add(storage: Storage, role: str, index: int = 0) -> None:
        storages[storage] = len(recipes)
        recipes.append(StorageRecipe(storage.dtype, storage.size, role, index))

    for i, s in enumerate(lowered.inputs):
        add(s, "input", i)
    for i, s in enumerate(lowered.outputs):
        add(s, "output", i)
    for s in lowered.temporaries:
        if s.parent is None:
            add(s, "arena")
    for k, s in enumerate(lowered.moving):
        add(s, "moving", k)
    for s in lowered.temporaries:
        if s.parent is not None:
            storages[s] = len(recipes)
            recipes.append(StorageRecipe(s.dtype, s.size, "part", storages[s.parent], s.offset))
    distinct = list(dict.fromkeys(kernels))
    number = {k: i for i, k in enumerate(distinct)}
    place = {eq: i for i, eq in enumerate(every_equation(lowered.graph))}
    launches = tuple(
        LaunchRecipe(
            number[k], tuple(storages[s] for s in x.buffers), x.arguments, x.tasks, x.work, x.scratch, x.note, x.kernel.name,
            tuple(place[eq] for eq in x.equations),
        )
        for x, k in zip(lowered.launches, kernels, strict=True)
    )
    counter = iter(range(len(launches)))

    def numbered(steps: Sequence[Step]) -> tuple[Any, ...]:
        found: list[Any] = []
        for x in steps:
            if isinstance(x, Launch):
                found.append(next(counter))
            elif isinstance(x, Branch):
                found.append(BranchRecipe(storages[x.predicate], numbered(x.then), numbered(x.otherwise)))
            else:
                limit, answer, taken = (-1 if s is None else storages[s] for s in (x.limit, x.answer, x.taken))
                moving = tuple((storages[m.storage], storages[m.source], m.step) for m in x.moving)
                carried = tuple(
                    tuple(storages[s] for s in (c.current, c.new, c.next, c.initial, c.home, c.other)) for c in x.carried
                )
                test, body = numbered(x.test), numbered(x.body)
                found.append(LoopRecipe(x.count, x.reverse, limit, answer, taken, moving, carried, test, body, x.strips))
        return tuple(found)

    steps = numbered(lowered.steps)
    first = [place[g.equations[0]] for g in lowered.groups]
    apart = tuple((first[p], first[c], reason) for p, c, reason in lowered.reasons)
    outputs = tuple((a.shape, a.dtype.name) for a in lowered.graph.outputs)
    at = {x: i for i, x in enumerate(lowered.launches)}
    kept = tuple((storages[s], tuple(at[x] for x in behind)) for s, behind in lowered.kept)
    return Recipe(tuple(distinct), tuple(recipes), launches, outputs, apart, kept, steps)
