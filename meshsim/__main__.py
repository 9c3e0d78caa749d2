"""`python -m meshsim` is `meshsim`."""

from meshsim.cli import main

if __name__ == "__main__":
    main()
