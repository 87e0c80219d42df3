%% SPDX-License-Identifier: Apache-2.0
%% @doc Between the coordinator of a shared run ({@link tokamak_pool_spread}) and its agent on another node.
%%
%% To start a process on a node, and to send to one, waits as long as the node does not answer or does not read. So
%% that it is not the coordinator that waits, each agent on another node has a courier, which starts it and passes
%% on what it is sent, in that order. It ends with its agent, for the same reason.
%% @private
-module(tokamak_pool_courier).

-export([start_link/3]).

%% When it sends again, in milliseconds, where the way to the node is full.
-define(SEND_AGAIN, 10).

%% @doc Starts a courier, and by it an agent on a node, which is to serve with these arguments.
-spec start_link(node(), module(), [term()]) -> pid().
start_link(Node, Module, Args) ->
    spawn_link(fun() -> start_agent(Node, Module, Args) end).

%% A node that is not connected is as good as lost.
start_agent(Node, Module, Args) ->
    case lists:member(Node, nodes()) of
        true ->
            {Agent, Monitor} = spawn_opt(Node, Module, serve, Args, [monitor]),
            pass_on(Agent, Monitor);
        false ->
            exit(noconnection)
    end.

pass_on(Agent, Monitor) ->
    receive
        {'DOWN', Monitor, process, Agent, Reason} ->
            exit(Reason);
        Message ->
            ok = send(Agent, Monitor, Message),
            pass_on(Agent, Monitor)
    end.

%% Not by waiting in the VM: there it would hear neither of the end of the run nor of that of its agent.
send(Agent, Monitor, Message) ->
    case erlang:send(Agent, Message, [noconnect, nosuspend]) of
        ok ->
            ok;
        noconnect ->
            exit(noconnection);
        nosuspend ->
            receive
                {'DOWN', Monitor, process, Agent, Reason} -> exit(Reason)
            after ?SEND_AGAIN -> send(Agent, Monitor, Message)
            end
    end.
