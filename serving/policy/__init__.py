"""Where a request may go: what is in it, and what follows from that. Pure, but for the file and the store it reads.

`decide(facts, policy)` says where; `parse_policy` reads the policy; `fields_of`, `texts_of` and `complexity_of` say
what a body has; a `TaintStore` remembers what was sensitive; `explain` says why.
"""
