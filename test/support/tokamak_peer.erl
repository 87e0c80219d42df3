%% SPDX-License-Identifier: Apache-2.0
%% VMs of their own for tests, connected by their standard input and output.
-module(tokamak_peer).

-export([start/0, start/1, call/2, call/3, stop/1, kill/1, os_pid/1]).
-export([become_node/1, end_peer/1]).

start() ->
    start([]).

%% A VM with our code and tokamak started.
start(Arguments) ->
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
    {ok, Peer, _} = peer:start(#{connection => standard_io, args => Arguments ++ Paths}),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [tokamak]),
    Peer.

call(Peer, Fun) ->
    call(Peer, Fun, 120000).

call(Peer, Fun, Timeout) ->
    peer:call(Peer, erlang, apply, [Fun, []], Timeout).

stop(Peer) ->
    peer:stop(Peer).

%% Stops a VM, if it has not ended before.
end_peer(Peer) ->
    try
        peer:stop(Peer)
    catch
        _:_ -> ok
    end.

%% Makes this VM a node. Its epmd may not listen yet, and the name may still be taken for a moment by a
%% node that just ended.
become_node(Name) ->
    [] = os:cmd("epmd -daemon"),
    tokamak_wait:until(fun() ->
        _ = net_kernel:start([list_to_atom(Name), shortnames]),
        is_alive()
    end).

os_pid(Peer) ->
    list_to_integer(peer:call(Peer, os, getpid, [])).

%% With SIGKILL.
kill(Peer) ->
    OsPid = os_pid(Peer),
    unlink(Peer),
    Monitor = monitor(process, Peer),
    [] = os:cmd("kill -9 " ++ integer_to_list(OsPid)),
    receive {'DOWN', Monitor, process, Peer, _} -> ok end,
    tokamak_wait:until(fun() -> not tokamak_wait:is_running(OsPid) end).
