"""Scripts, each with main(argv): prepare data, train, evaluate, embed."""
