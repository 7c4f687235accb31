"""From what a user asks for to cells: settings, combinations of models, rewards and methods, their resolution
to full settings, and the id that follows from these.

In the order of the way: `request` reads the options and the experiment file; `combinations` are what it
names, model by prompts by reward; `resolve` turns each into cells, out of `model_files`, `method_files`,
`reward_settings` and the `overrides` that lie over these; `checks` refuses what cannot go together;
`cell_digests` says what the names stand for, or what is absent; `identity` derives a cell's id. `missing`
tells what has to be fetched first. `settings` has the types of all of it. Beside this way, `ingredients`
gives the files that named models, rewards and prompt sets need, and `choices` makes the objects that a
cell's settings describe.

Imports: models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
