"""The process that alone may send anything out: what it is asked (`asking`), decides (`judge`) and does (`server`)."""
