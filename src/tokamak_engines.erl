%% SPDX-License-Identifier: Apache-2.0
%% @doc Engines: the NIF libraries whose runtimes the application starts, lists and stops.
%%
%% The base library's runtime starts with the application. That of another library, a runtime of its own
%% with two workers, starts when its engine is first called.
%% @private
-module(tokamak_engines).
-behaviour(gen_server).

-export([start_link/0, ensure/1, all/0, known/0, stop_runtimes/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

-define(BASE, tokamak_nif).
%% The engines that were ever started: their references outlive the application.
-define(KNOWN, {?MODULE, known}).
%% Worker threads of an engine's runtime.
-define(ENGINE_WORKERS, 2).
%% What a stop may take beyond the time that calls get to end, in milliseconds.
-define(STOP_GRACE, 5000).
%% The longest time that a receive waits.
-define(LONGEST, 16#FFFFFFFF).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Starts an engine's runtime, if it does not run. `unknown': the module is no engine.
-spec ensure(module()) -> ok | {error, unknown | shutdown | term()}.
ensure(Engine) ->
    try
        gen_server:call(?MODULE, {ensure, Engine}, infinity)
    catch
        exit:_ -> {error, shutdown}
    end.

%% @doc The engines whose runtimes were started, the base library first.
-spec all() -> [module()].
all() ->
    persistent_term:get(?MODULE, [?BASE]).

%% @doc The engines whose runtimes were started since the VM began, the base library first.
-spec known() -> [module()].
known() ->
    persistent_term:get(?KNOWN, [?BASE]).

%% @doc Stops all runtimes, side by side: calls that run get `drain_timeout' to end. None starts any more.
-spec stop_runtimes() -> ok.
stop_runtimes() ->
    Drain = tokamak_config:get(drain_timeout),
    close(),
    Stopping = [{Engine, stop_runtime(Engine, Drain)} || Engine <- all()],
    _ = persistent_term:erase(?MODULE),
    lists:foreach(fun({Engine, Ref}) -> await_stop(Engine, Ref, Drain) end, Stopping).

%% The server may have ended already.
close() ->
    try
        gen_server:call(?MODULE, close, infinity)
    catch
        exit:_ -> ok
    end.

stop_runtime(Engine, Drain) ->
    Ref = make_ref(),
    ok = Engine:op_stop_runtime(Drain, Ref),
    Ref.

await_stop(Engine, Ref, Drain) ->
    receive
        {tokamak, Ref, stopped} -> ok
    after min(Drain + ?STOP_GRACE, ?LONGEST) ->
        ?LOG_WARNING("tokamak: the runtime of ~ts did not stop in time", [Engine], #{
            domain => [tokamak], engine => Engine
        })
    end.

%% @private
-spec init([]) -> {ok, open} | {stop, term()}.
init([]) ->
    case start_runtime(?BASE) of
        ok ->
            %% Those that were started before this process was started anew are this one's to announce.
            lists:foreach(fun announce/1, all()),
            {ok, started(?BASE)};
        {error, Reason} ->
            {stop, Reason}
    end.

started(Engine) ->
    persistent_term:put(?MODULE, with(Engine, all())),
    persistent_term:put(?KNOWN, with(Engine, known())),
    announce(Engine),
    ok = tokamak_alarms:watch(Engine),
    open.

%% Other nodes find the engine by this.
announce(Engine) ->
    Group = {engine, Engine},
    case lists:member(self(), pg:get_local_members(tokamak, Group)) of
        true -> ok;
        false -> pg:join(tokamak, Group, self())
    end.

with(Engine, Engines) ->
    Engines ++ ([Engine] -- Engines).

%% @private
-spec handle_call(term(), gen_server:from(), open | closed) ->
    {reply, ok | {error, term()}, open | closed}.
handle_call({ensure, _Engine}, _From, closed) ->
    {reply, {error, shutdown}, closed};
handle_call({ensure, Engine}, _From, open) when is_atom(Engine) ->
    case is_engine(Engine) of
        true ->
            case start_runtime(Engine) of
                ok -> {reply, ok, started(Engine)};
                {error, _} = Error -> {reply, Error, open}
            end;
        false ->
            {reply, {error, unknown}, open}
    end;
handle_call(close, _From, _State) ->
    {reply, ok, closed};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), State) -> {noreply, State}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), State) -> {noreply, State}.
handle_info(_Message, State) ->
    {noreply, State}.

is_engine(Engine) ->
    case code:ensure_loaded(Engine) of
        {module, Engine} -> erlang:function_exported(Engine, op_start_runtime, 4);
        {error, _} -> false
    end.

start_runtime(Engine) ->
    Blocking = tokamak_config:get(max_blocking_threads),
    InFlight = tokamak_config:get(max_in_flight),
    case Engine of
        ?BASE ->
            Workers = tokamak_config:get(worker_threads),
            Engine:op_start_runtime(Workers, Blocking, InFlight, undefined);
        _ ->
            Engine:op_start_runtime(?ENGINE_WORKERS, Blocking, InFlight, tokamak_nif:table())
    end.
