"""A running mesh that is spoken to as kubectl speaks to a cluster: apply, get, delete, label, logs, exec.

How this works: `meshsim up` leaves a process of its own behind (`daemon`) that holds the live mesh and listens on a Unix socket in
its run folder, which only its user can enter. A command (`client`) hands it its words, a token of the run folder and its own standard
input, output and error as file descriptors; `commands` answers on those. Resources are kept by `store`, and printed by `tables`.
"""
