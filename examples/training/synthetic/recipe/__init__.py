"""The stages of the recipe, each a module; `run_recipe.py` calls them in order."""
