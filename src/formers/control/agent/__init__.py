"""Agents that remember: GTrXL as the memory of a policy, trained by what it earns."""

from formers.control.agent.act import act, require_fit
from formers.control.agent.gtrxl import gtrxl_agent
from formers.control.agent.model import THIS_EPISODE, Acted, Agent, AgentLayer, AgentState
from formers.control.agent.policy import Categorical, Gaussian, Policy
from formers.control.agent.ppo import PPO, Learner
from formers.control.agent.rollout import Experience, Finished, Rollouts, advantages
from formers.control.agent.train import Outcome, plot_returns, train_agent

__all__ = [
    "PPO",
    "THIS_EPISODE",
    "Acted",
    "Agent",
    "AgentLayer",
    "AgentState",
    "Categorical",
    "Experience",
    "Finished",
    "Gaussian",
    "Learner",
    "Outcome",
    "Policy",
    "Rollouts",
    "act",
    "advantages",
    "gtrxl_agent",
    "plot_returns",
    "require_fit",
    "train_agent",
]
