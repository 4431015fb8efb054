"""What people read of finished work: model cards, tables, and what a report is made from.

Imports flows/planning, never a task of flows/steps.
"""
