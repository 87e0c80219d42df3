%% SPDX-License-Identifier: Apache-2.0
%% @doc Which loop serves whom: a set of supervised loops, by default one for each scheduler.
%%
%% A key always gets the same loop while that loop lives. A loop that crashes is replaced at once: its
%% handlers get `{tokamak, Ref, closed}', its pollers `{error, closed}', and {@link loop_for/1} gives the new
%% one. Look-ups read a table and never wait.
-module(tokamak_router).
-behaviour(gen_server).

-export([loop_for/1, loops/0]).
-export([start_link/0, create_table/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

%% The loops that are watched: which place in the set each has.
-type state() :: #{Monitor :: reference() => Index :: non_neg_integer()}.

-define(TABLE, ?MODULE).
%% How long to wait before a loop that could not be made is tried again, in milliseconds.
-define(RETRY, 100).

%% @doc Returns the loop of a key: any term. `shutdown': the application does not run, or its loops are just being made.
%% In the moment between the crash of a loop and its replacement this is still the old one, which says `closed'.
%%
%% ```
%% Loop = tokamak_router:loop_for({user, 42}).
%% Loop = tokamak_router:loop_for({user, 42}).
%% true = lists:member(Loop, tokamak_router:loops()).
%% '''
-spec loop_for(Key :: term()) -> tokamak_loop:loop() | {error, shutdown}.
loop_for(Key) ->
    try
        Size = ets:info(?TABLE, size),
        ets:lookup_element(?TABLE, erlang:phash2(Key, Size), 2)
    catch
        %% There is no table, or not all loops are in it yet.
        error:badarg -> {error, shutdown}
    end.

%% @doc Lists the loops of the set, as many as the configuration's `loops'; `[]' when the application does not run.
%%
%% ```
%% [ok = tokamak_loop:post(Loop, 1, user, hello) || Loop <- tokamak_router:loops()].
%% [[{1, user, hello}] = tokamak_loop:poll(Loop, 5000) || Loop <- tokamak_router:loops()].
%% '''
-spec loops() -> [tokamak_loop:loop()].
loops() ->
    try
        [Loop || {_Index, Loop, _Monitor} <- lists:sort(ets:tab2list(?TABLE))]
    catch
        error:badarg -> []
    end.

%% @private
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @private The supervisor owns the table, so that a router that is started anew finds its loops.
-spec create_table() -> ok.
create_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @private
-spec init([]) -> {ok, state()}.
init([]) ->
    Count = tokamak_config:get(loops),
    {ok, lists:foldl(fun take_over/2, #{}, lists:seq(0, Count - 1))}.

take_over(Index, State) ->
    case ets:lookup(?TABLE, Index) of
        [{Index, Loop, _Monitor}] -> watch(Index, Loop, State);
        [] -> replace(Index, State)
    end.

replace(Index, State) ->
    case tokamak_loop:new() of
        {ok, Loop} ->
            watch(Index, Loop, State);
        {error, Reason} ->
            ?LOG_ERROR("tokamak: loop ~b cannot be made: ~tp", [Index, Reason], #{domain => [tokamak], loop => Index}),
            _ = erlang:send_after(?RETRY, self(), {replace, Index}),
            State
    end.

watch(Index, Loop, State) ->
    case tokamak_nif:loop_owner(Loop) of
        {supervised, Pid} ->
            Monitor = monitor(process, Pid),
            true = ets:insert(?TABLE, {Index, Loop, Monitor}),
            State#{Monitor => Index};
        {error, closed} ->
            replace(Index, State)
    end.

%% @private
-spec handle_call(term(), gen_server:from(), State) -> {reply, {error, unknown}, State}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), State) -> {noreply, State}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({'DOWN', Monitor, process, _Pid, _Reason}, State) when is_map_key(Monitor, State) ->
    {Index, Rest} = maps:take(Monitor, State),
    {noreply, replace(Index, Rest)};
handle_info({replace, Index}, State) ->
    {noreply, replace(Index, State)};
handle_info(_Message, State) ->
    {noreply, State}.
