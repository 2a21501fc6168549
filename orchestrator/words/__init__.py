"""Words: what the API answers as sentences, said alike by the command line, the page and reports."""
