"""The prefix tree against a list of lists."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.llamacpp.prefix import PrefixTree, common_length

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)
ROOTS = st.sampled_from([("", "a"), ("", "b"), ("adapter", "a")])


class Tree(RuleBasedStateMachine):
    """Holders with paths. `cells` in the model is one object per physical cell, shared by forks."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree()
        self.paths: dict[int, list[tuple[int, int]]] = {}
        self.roots: dict[int, tuple[str, str]] = {}
        self.ids = itertools.count()
        self.cells = itertools.count()

    @rule(root=ROOTS)
    def add(self, root) -> None:
        holder = next(self.ids)
        self.tree.add(holder, root)
        self.paths[holder], self.roots[holder] = [], root

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def fork(self, data) -> None:
        source = data.draw(st.sampled_from(sorted(self.paths)))
        length = data.draw(st.integers(0, len(self.paths[source])))
        holder = next(self.ids)
        self.tree.fork(holder, source, length)
        self.paths[holder], self.roots[holder] = self.paths[source][:length], self.roots[source]

    @precondition(lambda self: self.paths)
    @rule(data=st.data(), tokens=TOKENS)
    def extend(self, data, tokens) -> None:
        holder = data.draw(st.sampled_from(sorted(self.paths)))
        self.tree.extend(holder, tokens)
        self.paths[holder] = self.paths[holder] + [(token, next(self.cells)) for token in tokens]

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def trim(self, data) -> None:
        holder = data.draw(st.sampled_from(sorted(self.paths)))
        length = data.draw(st.integers(0, len(self.paths[holder])))
        self.tree.trim(holder, length)
        self.paths[holder] = self.paths[holder][:length]

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def rename(self, data) -> None:
        holder = data.draw(st.sampled_from(sorted(self.paths)))
        new = next(self.ids)
        self.tree.rename(holder, new)
        self.paths[new], self.roots[new] = self.paths.pop(holder), self.roots.pop(holder)

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def release(self, data) -> None:
        holder = data.draw(st.sampled_from(sorted(self.paths)))
        self.tree.release(holder)
        del self.paths[holder], self.roots[holder]

    @rule(root=ROOTS, tokens=TOKENS, limit=st.integers(0, 12))
    def match(self, root, tokens, limit) -> None:
        limit = min(limit, len(tokens))
        best = {
            holder: common_length(tokens[:limit], [token for token, _ in path])
            for holder, path in self.paths.items()
            if self.roots[holder] == root
        }
        longest = max(best.values(), default=0)
        found = self.tree.match(root, tokens, limit)
        assert found.length == longest
        assert all(best[holder] == longest for holder in found.holders)
        assert bool(found.holders) == (longest > 0)
        whole = self.tree.match_whole(root, tokens, limit)
        exact = [holder for holder, length in best.items() if length == len(self.paths[holder])]
        assert whole.length == max((best[holder] for holder in exact), default=0)
        assert all(len(self.paths[holder]) == whole.length and holder in exact for holder in whole.holders)

    @invariant()
    def counts_and_paths_agree(self) -> None:
        assert self.tree.cells == len({cell for path in self.paths.values() for cell in path})
        for holder, path in self.paths.items():
            assert self.tree.tokens(holder) == [token for token, _ in path]
            assert self.tree.length(holder) == len(path)
        some = sorted(self.paths)[::2]
        assert self.tree.cells_of(some) == len({cell for holder in some for cell in self.paths[holder]})


Tree.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTree = Tree.TestCase
