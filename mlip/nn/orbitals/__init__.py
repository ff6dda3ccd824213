"""Parts of networks that predict matrices over atomic orbitals."""
