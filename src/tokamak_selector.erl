%% SPDX-License-Identifier: Apache-2.0
%% @doc The process that the VM tells of the descriptors of one raw loop with the select backend, so that
%% the loop's owner gets its one `ready' and no message for each descriptor. It ends with the loop.
%% @private
-module(tokamak_selector).

-export([start_link/1, init/1]).

-spec start_link(tokamak_nif:loop()) -> {ok, pid()} | {error, term()}.
start_link(Loop) ->
    proc_lib:start_link(?MODULE, init, [Loop]).

%% @private
-spec init(tokamak_nif:loop()) -> ok.
init(Loop) ->
    case tokamak_nif:loop_select_here(Loop) of
        ok ->
            proc_lib:init_ack({ok, self()}),
            forward(Loop);
        Error ->
            proc_lib:init_ack(Error)
    end.

forward(Loop) ->
    receive
        {select, Fd, undefined, ready_input} ->
            _ = tokamak_nif:loop_selected(Fd, read),
            forward(Loop);
        {select, Fd, undefined, ready_output} ->
            _ = tokamak_nif:loop_selected(Fd, write),
            forward(Loop);
        {tokamak, Loop, closed} ->
            ok;
        _ ->
            forward(Loop)
    end.
