"""Local servers that stand in for vendors' APIs: each checks what it is sent against the vendor's own published types.

That they are honest is tested by the vendors' own clients (`tests/vendors`).
"""
