"""What carries generated code: the C runtime and its headers, the C compiler, and the library in Python's hands.

The folder's ``.c`` and ``.h`` files are shipped with the package and compiled beside what the generator emits.
"""
