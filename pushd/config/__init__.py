"""The configuration: one table of options, and what is made of it.

``options`` is the table. ``reading`` makes frozen dataclasses of an ini file by it, and an ini file of them;
``reference`` makes the sample file and the reference page.
"""
