"""Which computed prefixes exist, who holds them, and how many cells they take. Touches no llama.cpp.

A radix tree per root, a root being (adapter, cache domain): nothing is ever shared between two roots. A *holder* is a
sequence id (or a snapshot) whose computed tokens are the path from the root to its leaf. In the unified layout the
tree is also the truth about cells: sequences that share a path share its cells, so the number of cells in use is the
sum of the nodes' lengths. Two siblings may begin alike: two sequences that computed the same tokens side by side have
cells of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Root = tuple[str, str]
"""(adapter, cache domain)"""


class _Node:
    """A run of tokens, `start … start + len(tokens)` positions from the root."""

    __slots__ = ("children", "holders", "parent", "start", "tokens")

    def __init__(self, parent: _Node | None, start: int, tokens: list[int]) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.children: dict[int, list[_Node]] = {}
        self.holders: set[int] = set()

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def adopt(self, child: _Node) -> None:
        self.children.setdefault(child.tokens[0], []).append(child)

    def disown(self, child: _Node) -> None:
        siblings = self.children[child.tokens[0]]
        siblings.remove(child)
        if not siblings:
            del self.children[child.tokens[0]]


@dataclass(frozen=True, slots=True)
class Match:
    """The longest computed prefix of some tokens: its length, and the holders it can be taken from."""

    length: int
    holders: tuple[int, ...]


NO_MATCH = Match(0, ())


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two lists have in common from their start."""
    n = min(len(left), len(right))
    if left[:n] == right[:n]:
        return n
    low, high = 0, n  # equal up to low, different somewhere before high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


class PrefixTree:
    """All computed paths. `cells` is their number of distinct tokens."""

    def __init__(self) -> None:
        self._roots: dict[Root, _Node] = {}
        self._leaf: dict[int, _Node] = {}
        self._root_of: dict[int, Root] = {}
        self.cells = 0

    def __contains__(self, holder: int) -> bool:
        return holder in self._leaf

    def length(self, holder: int) -> int:
        """Tokens on a holder's path."""
        return self._leaf[holder].end

    def tokens(self, holder: int) -> list[int]:
        """The path itself, from the root."""
        runs: list[list[int]] = []
        node: _Node | None = self._leaf[holder]
        while node is not None:
            runs.append(node.tokens)
            node = node.parent
        return [token for run in reversed(runs) for token in run]

    def match(self, root: Root, tokens: Sequence[int], limit: int) -> Match:
        """The longest prefix of `tokens[:limit]` under this root."""
        top = self._roots.get(root)
        if top is None or limit <= 0:
            return NO_MATCH
        best, where = 0, top
        stack = [top]
        while stack:
            node = stack.pop()
            for child in node.children.get(tokens[node.end] if node.end < limit else -1, ()):
                run = child.tokens
                same = common_length(run, tokens[child.start : min(child.start + len(run), limit)])
                if child.start + same > best:
                    best, where = child.start + same, child
                if same == len(run):
                    stack.append(child)
        return Match(best, tuple(self._holders_below(where))) if best else NO_MATCH

    def match_whole(self, root: Root, tokens: Sequence[int], limit: int) -> Match:
        """The longest path that is held to exactly its end and is a prefix of `tokens[:limit]`.

        What recurrent and sliding-window memories can reuse: they cannot be cut back to a shorter length.
        """
        top = self._roots.get(root)
        best = NO_MATCH
        stack = [] if top is None else [top]
        while stack:
            node = stack.pop()
            if node.holders and node.end > best.length:
                best = Match(node.end, tuple(node.holders))
            stack.extend(
                child
                for child in node.children.get(tokens[node.end] if node.end < limit else -1, ())
                if child.end <= limit and child.tokens == list(tokens[child.start : child.end])
            )
        return best

    def add(self, holder: int, root: Root) -> None:
        """A holder with nothing computed."""
        top = self._roots.get(root)
        if top is None:
            top = self._roots[root] = _Node(None, 0, [])
        top.holders.add(holder)
        self._leaf[holder] = top
        self._root_of[holder] = root

    def fork(self, holder: int, source: int, length: int) -> None:
        """A new holder that shares the first `length` tokens of `source`, under the same root."""
        node = self._cut(self._leaf[source], length)
        node.holders.add(holder)
        self._leaf[holder] = node
        self._root_of[holder] = self._root_of[source]

    def extend(self, holder: int, tokens: Sequence[int]) -> None:
        """Tokens that the holder has now computed, after those it had."""
        if not tokens:
            return
        leaf = self._leaf[holder]
        self.cells += len(tokens)
        if len(leaf.holders) == 1 and not leaf.children and leaf.parent is not None:
            leaf.tokens.extend(tokens)
            return
        child = _Node(leaf, leaf.end, list(tokens))
        leaf.adopt(child)
        leaf.holders.discard(holder)
        child.holders.add(holder)
        self._leaf[holder] = child

    def trim(self, holder: int, length: int) -> None:
        """Keep only the first `length` tokens of a holder's path."""
        leaf = self._leaf[holder]
        node = self._cut(leaf, length)
        if node is leaf and leaf.end == length:
            return
        self._leaf[holder].holders.discard(holder)
        node.holders.add(holder)
        old, self._leaf[holder] = self._leaf[holder], node
        self._prune(old)

    def release(self, holder: int) -> None:
        """Forget a holder; runs that nobody else holds are freed."""
        leaf = self._leaf.pop(holder)
        root = self._root_of.pop(holder)
        leaf.holders.discard(holder)
        self._prune(leaf)
        top = self._roots[root]
        if not top.children and not top.holders:
            del self._roots[root]

    def rename(self, old: int, new: int) -> None:
        """The path moved to another sequence id."""
        leaf = self._leaf.pop(old)
        leaf.holders.discard(old)
        leaf.holders.add(new)
        self._leaf[new] = leaf
        self._root_of[new] = self._root_of.pop(old)

    def cells_of(self, holders: Sequence[int]) -> int:
        """Distinct cells on the paths of these holders together."""
        seen: set[int] = set()
        total = 0
        for holder in holders:
            node: _Node | None = self._leaf[holder]
            while node is not None and id(node) not in seen:
                seen.add(id(node))
                total += len(node.tokens)
                node = node.parent
        return total

    def is_covered(self, holder: int) -> bool:
        """Whether another holder's path contains all of this one's, so that keeping it adds nothing."""
        leaf = self._leaf[holder]
        return bool(leaf.children) or len(leaf.holders) > 1

    def _holders_below(self, node: _Node) -> Iterator[int]:
        stack = [node]
        while stack:
            current = stack.pop()
            yield from current.holders
            for siblings in current.children.values():
                stack.extend(siblings)

    def _cut(self, node: _Node, length: int) -> _Node:
        """The node on this path that ends exactly at `length`, splitting one where it must."""
        while node.parent is not None and node.start >= length:
            node = node.parent
        if node.end == length or node.parent is None:
            return node
        head = _Node(node.parent, node.start, node.tokens[: length - node.start])
        node.parent.disown(node)
        node.tokens = node.tokens[length - node.start :]
        node.start = length
        node.parent = head
        head.adopt(node)
        assert head.parent is not None  # noqa: S101 - for the type checker; the root is never split
        head.parent.adopt(head)
        return head

    def _prune(self, node: _Node) -> None:
        while node.parent is not None and not node.holders and not node.children:
            node.parent.disown(node)
            self.cells -= len(node.tokens)
            node = node.parent
