"""Grading: a student's notebook runs in a process of its own, and the lab's checks judge its answers in another.

lessons   which lesson a notebook is, and which checks that lesson has
wire      answers as JSON, in both directions; nothing is unpickled
kernel    the process that runs the notebook's cells; its checks only ask
environ   the part of the teacher's environment that the process is given
guard     what that process may not do; landlock adds what the kernel of Linux enforces
judge     the lab's checks, in the grader's own process, on what came over the wire
session   one notebook: start, watch, kill, listen
folder    a whole class, and its table
"""
