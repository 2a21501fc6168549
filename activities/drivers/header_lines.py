"""Header lines of HTTP in linear time, for everything here that h11 parses: importing this module is enough.

h11 0.16 tries each length of the spaces after a colon where a line cannot match: a peer's line of 64 KB that
ends in a byte that no header may have takes about 20 s, during which no other thread of the process runs.
"""

import re

import h11._abnf as grammar
import h11._readers as readers

NAME, VALUE = grammar.field_name, grammar.field_value

LINE = re.compile(rf"(?P<field_name>{NAME}):[ \t]*+(?P<field_value>{VALUE})[ \t]*".encode("ascii"))
"""h11's own pattern, except that it takes all spaces after the colon at once: no value begins with one."""

readers.header_field_re = LINE
